// What the mock provider says: well-formed answers of each endpoint, made of what was asked.

type Json = Readonly<Record<string, unknown>>;

/** One JSON value, or the data lines of an event stream in the order in which they are sent. */
type MockAnswer =
  | { readonly kind: "json"; readonly body: Json }
  | { readonly kind: "events"; readonly events: readonly MockEvent[] };

export interface MockEvent {
  /** Null where the stream has data lines only. */
  readonly event: string | null;
  readonly data: string;
}

export const MOCK_MODELS = ["mock-large", "mock-small"] as const;

const EMBEDDING = [0.25, -0.5, 0.75, -1];

/** Null for a path that has no answer. `body` is what was sent, whatever it is. */
export function mockAnswer(path: string, body: Json): MockAnswer | null {
  switch (path) {
    case "/chat/completions":
      return chat(body);
    case "/completions":
      return completion(body);
    case "/embeddings":
      return { kind: "json", body: embeddings(body) };
    case "/moderations":
      return { kind: "json", body: moderation(body) };
    case "/responses":
      return response(body);
    default:
      return null;
  }
}

export function mockModel(id: string): Json {
  return { id, object: "model", created: 1_700_000_000, owned_by: "mock" };
}

function chat(body: Json): MockAnswer {
  const messages = Array.isArray(body.messages) ? (body.messages as Json[]) : [];
  const asked = textOf(messages.at(-1)?.content);
  const tool = messages.at(-1)?.role === "user" && body.tool_choice !== "none" ? firstTool(body.tools) : null;
  const words = tool === null ? wordsOf(`You said: ${asked}`) : [];
  const calls =
    tool === null
      ? {}
      : { tool_calls: [{ id: newId("call_"), type: "function", function: { name: tool, arguments: "{}" } }] };
  const finish = tool === null ? "stop" : "tool_calls";
  const common = { id: newId("chatcmpl-"), created: seconds(), model: body.model };
  const usage = chatUsage(asked, words);
  if (body.stream !== true) {
    const message = { role: "assistant", content: tool === null ? words.join("") : null, ...calls };
    const choices = [{ index: 0, message, logprobs: null, finish_reason: finish }];
    return { kind: "json", body: { ...common, object: "chat.completion", choices, usage } };
  }
  const indexed = (calls.tool_calls ?? []).map((call, index) => ({ index, ...call }));
  const deltas: Json[] = [
    { role: "assistant", content: tool === null ? "" : null },
    ...words.map((content) => ({ content })),
    ...(tool === null ? [] : [{ tool_calls: indexed }]),
  ];
  const chunk = (choices: readonly Json[]) => ({ ...common, object: "chat.completion.chunk", choices });
  return streamOf(body, usage, chunk, [
    ...deltas.map((delta) => ({ index: 0, delta, finish_reason: null })),
    { index: 0, delta: {}, finish_reason: finish },
  ]);
}

function completion(body: Json): MockAnswer {
  const asked = textOf(body.prompt);
  const words = wordsOf(`You wrote: ${asked}`);
  const common = { id: newId("cmpl-"), object: "text_completion", created: seconds(), model: body.model };
  const usage = chatUsage(asked, words);
  const choice = (text: string, finish_reason: string | null) => ({ index: 0, text, logprobs: null, finish_reason });
  if (body.stream !== true) {
    return { kind: "json", body: { ...common, choices: [choice(words.join(""), "stop")], usage } };
  }
  const chunk = (choices: readonly Json[]) => ({ ...common, choices });
  return streamOf(body, usage, chunk, [...words.map((word) => choice(word, null)), choice("", "stop")]);
}

/** One chunk per choice, the usage when it was asked for, and the end mark. */
function streamOf(
  body: Json,
  usage: Json,
  chunk: (choices: readonly Json[]) => Json,
  choices: readonly Json[],
): MockAnswer {
  const wantsUsage = (body.stream_options as Json | null | undefined)?.include_usage === true;
  const chunks = choices.map((choice) => ({ ...chunk([choice]), ...(wantsUsage ? { usage: null } : {}) }));
  const last = wantsUsage ? [{ ...chunk([]), usage }] : [];
  const data = [...chunks, ...last].map((value) => JSON.stringify(value));
  return { kind: "events", events: [...data, "[DONE]"].map((line) => ({ event: null, data: line })) };
}

function embeddings(body: Json): Json {
  const inputs = Array.isArray(body.input) && typeof body.input[0] !== "number" ? body.input : [body.input];
  const isBase64 = body.encoding_format === "base64";
  const embedding = isBase64 ? Buffer.from(new Float32Array(EMBEDDING).buffer).toString("base64") : EMBEDDING;
  const promptTokens = countWords(inputs.map(textOf).join(" "));
  return {
    object: "list",
    data: inputs.map((_, index) => ({ object: "embedding", index, embedding })),
    model: body.model,
    usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
  };
}

function moderation(body: Json): Json {
  const inputs = Array.isArray(body.input) ? body.input : [body.input];
  const result = { flagged: false, categories: { violence: false }, category_scores: { violence: 0.01 } };
  return { id: newId("modr-"), model: body.model ?? "omni-moderation-latest", results: inputs.map(() => result) };
}

function response(body: Json): MockAnswer {
  const asked = textOf(body.input);
  const words = wordsOf(`You asked: ${asked}`);
  const text = words.join("");
  const part = { type: "output_text", text, annotations: [] };
  const item = { id: newId("msg_"), type: "message", role: "assistant", status: "completed", content: [part] };
  const common = {
    id: newId("resp_"),
    object: "response",
    created_at: seconds(),
    model: body.model,
    error: null,
    incomplete_details: null,
    instructions: body.instructions ?? null,
    metadata: {},
    parallel_tool_calls: true,
    previous_response_id: body.previous_response_id ?? null,
    tools: [],
    tool_choice: "auto",
  };
  const { prompt_tokens: input_tokens, completion_tokens: output_tokens, total_tokens } = chatUsage(asked, words);
  const usage = { input_tokens, output_tokens, total_tokens, input_tokens_details: { cached_tokens: 0 } };
  const completed = { ...common, status: "completed", output: [item], usage };
  if (body.stream !== true) return { kind: "json", body: completed };
  const place = { item_id: item.id, output_index: 0, content_index: 0 };
  const begun = { ...common, status: "in_progress", output: [], usage: null };
  const steps: Json[] = [
    { type: "response.created", response: begun },
    { type: "response.in_progress", response: begun },
    { type: "response.output_item.added", output_index: 0, item: { ...item, status: "in_progress", content: [] } },
    { type: "response.content_part.added", ...place, part: { ...part, text: "" } },
    ...words.map((delta) => ({ type: "response.output_text.delta", ...place, delta })),
    { type: "response.output_text.done", ...place, text },
    { type: "response.content_part.done", ...place, part },
    { type: "response.output_item.done", output_index: 0, item },
    { type: "response.completed", response: completed },
  ];
  const events = steps.map((step, sequence_number) => ({
    event: String(step.type),
    data: JSON.stringify({ ...step, sequence_number }),
  }));
  return { kind: "events", events };
}

function chatUsage(asked: string, words: readonly string[]) {
  const [prompt, completion] = [Math.max(1, countWords(asked)), Math.max(1, words.length)];
  return { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion };
}

/** The text of a string, of parts with text, or of a list of either. */
function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(textOf).filter(Boolean).join(" ");
  if (typeof value !== "object" || value === null) return "";
  const { text, content } = value as Json;
  return textOf(text ?? content ?? "");
}

function firstTool(tools: unknown): string | null {
  const [first] = Array.isArray(tools) ? (tools as Json[]) : [];
  const name = (first?.function as Json | undefined)?.name;
  return typeof name === "string" ? name : null;
}

/** Joined again they are the text. */
function wordsOf(text: string): string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

function countWords(text: string): number {
  return text.split(/\s+/).filter(Boolean).length;
}

function newId(prefix: string): string {
  return prefix + crypto.randomUUID().replaceAll("-", "");
}

function seconds(): number {
  return Math.floor(Date.now() / 1000);
}
