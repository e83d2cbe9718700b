// The kinds of providers that an operator can name, and where each one is reached.

/** Null: the operator has to give an address. */
export const PROVIDER_ADDRESSES = {
  OpenAI: "https://api.openai.com/v1",
  SiliconFlow: "https://api.siliconflow.cn/v1",
  DeepSeek: "https://api.deepseek.com/v1",
  OpenRouter: "https://openrouter.ai/api/v1",
  Moonshot: "https://api.moonshot.cn/v1",
  Groq: "https://api.groq.com/openai/v1",
  Mistral: "https://api.mistral.ai/v1",
  Together: "https://api.together.xyz/v1",
  Ollama: null,
  Custom: null,
} as const;

export type ChannelType = keyof typeof PROVIDER_ADDRESSES;

export const DEFAULT_TYPE: ChannelType = "OpenAI";

/** They refuse `stream_options`, and say at the end of every stream what was used. */
const WITHOUT_STREAM_OPTIONS: ReadonlySet<ChannelType> = new Set<ChannelType>(["Mistral"]);

/** What `no_stream_options` is for a channel of this type, unless its operator says otherwise. */
export function lacksStreamOptions(type: ChannelType): boolean {
  return WITHOUT_STREAM_OPTIONS.has(type);
}

/** Only the numbers that one-api and new-api give the same meaning: all others differ between them. */
const TYPE_BY_NUMBER: Readonly<Record<number, ChannelType>> = {
  1: "OpenAI",
  8: "Custom",
  20: "OpenRouter",
  25: "Moonshot",
};

/** The type that a name, in any case, or a number stands for; null when there is none. */
export function channelTypeOf(given: string | number): ChannelType | null {
  if (typeof given === "number") return TYPE_BY_NUMBER[given] ?? null;
  const names = Object.keys(PROVIDER_ADDRESSES) as ChannelType[];
  return names.find((name) => name.toLowerCase() === given.toLowerCase()) ?? null;
}
