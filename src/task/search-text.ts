// The text that searches look through: the same on every engine, since no engine makes it.

/**
 * In UTF-16 code units. Single characters stand for words of up to eighteen letters; of a text that consists of such
 * ones the end is not searched.
 */
const SEARCH_TEXT_MAX = 80_000;

/** What a search looks through, of one task. */
export function searchTextOf({ title, description }: { readonly title: string; readonly description: string }): string {
  const text = fold(`${title}\n${description}`);
  if (text.length <= SEARCH_TEXT_MAX) return text;
  // Not a half of a character.
  const isCut = text.charCodeAt(SEARCH_TEXT_MAX - 1) >> 10 === 0b110110;
  return text.slice(0, isCut ? SEARCH_TEXT_MAX - 1 : SEARCH_TEXT_MAX);
}

/** The words of a search in the form of the search text; all of them must occur there, as parts of it. */
export function searchWordsOf(text: string): readonly string[] {
  return [...new Set(fold(text).split(/\s+/u))].filter((word) => word !== "");
}

function fold(text: string): string {
  return text.normalize("NFKC").toLowerCase();
}
