// The providers that channels know by name, and where each of them is reached.

import { expect, test } from "bun:test";
import { channelTypeOf, DEFAULT_TYPE, PROVIDER_ADDRESSES } from "../../src/relay/channel-types.ts";

test("each provider is reached where it says, and two have no address but the one that is given", () => {
  expect(PROVIDER_ADDRESSES).toEqual({
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
  });
  expect(DEFAULT_TYPE).toBe("OpenAI");
});

test("a provider is named in any case, or by one of the four numbers that everybody agrees on", () => {
  for (const name of ["siliconflow", "SILICONFLOW", "SiliconFlow"]) expect(channelTypeOf(name)).toBe("SiliconFlow");
  const numbered = Array.from({ length: 100 }, (_, number) => [number, channelTypeOf(number)] as const);
  expect(numbered.filter(([, type]) => type !== null)).toEqual([
    [1, "OpenAI"],
    [8, "Custom"],
    [20, "OpenRouter"],
    [25, "Moonshot"],
  ]);
});
