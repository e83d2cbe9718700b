// The endpoints that are relayed: what each is called, what it asks of a body, where it leads.

/** The model that routes a moderation without one: the default of the API. */
export const DEFAULT_MODERATION_MODEL = "omni-moderation-latest";

/** Members that bound the tokens of an answer, each at some of the endpoints. */
export const ANSWER_LIMITS = ["max_tokens", "max_completion_tokens", "max_output_tokens"] as const;
type AnswerLimit = (typeof ANSWER_LIMITS)[number];

export interface Endpoint {
  readonly name: "chat" | "completions" | "embeddings" | "moderations" | "responses";
  /** Below the version segment of an upstream, and below `/v1` here. */
  readonly path: string;
  /** The member that holds what the model is to work on. */
  readonly input: "messages" | "prompt" | "input";
  /** The members that bound an answer there: those of other endpoints bound nothing. */
  readonly answerLimits: readonly AnswerLimit[];
  readonly mayStream: boolean;
  /** Whether `stream_options.include_usage` exists there. */
  readonly hasStreamOptions: boolean;
  /** Whether an answer is metered as generated text: otherwise only what goes in costs, or nothing. */
  readonly cost: "generation" | "input" | "none";
  /** Whether an answer may be a bare JSON array. */
  readonly mayBeArray?: boolean;
}

export const ENDPOINTS = {
  chat: {
    name: "chat",
    path: "/chat/completions",
    input: "messages",
    answerLimits: ["max_tokens", "max_completion_tokens"],
    mayStream: true,
    hasStreamOptions: true,
    cost: "generation",
  },
  completions: {
    name: "completions",
    path: "/completions",
    input: "prompt",
    answerLimits: ["max_tokens"],
    mayStream: true,
    hasStreamOptions: true,
    cost: "generation",
  },
  embeddings: {
    name: "embeddings",
    path: "/embeddings",
    input: "input",
    answerLimits: [],
    mayStream: false,
    hasStreamOptions: false,
    cost: "input",
  },
  moderations: {
    name: "moderations",
    path: "/moderations",
    input: "input",
    answerLimits: [],
    mayStream: false,
    hasStreamOptions: false,
    cost: "none",
  },
  responses: {
    name: "responses",
    path: "/responses",
    input: "input",
    answerLimits: ["max_output_tokens"],
    mayStream: true,
    hasStreamOptions: false,
    cost: "generation",
  },
} as const satisfies Record<Endpoint["name"], Endpoint>;
