// The text that searches look through: the same on every engine, since no engine makes it.

/** What a search looks through, of one task. */
export function searchTextOf({ title, description }: { readonly title: string; readonly description: string }): string {
  return fold(`${title}\n${description}`);
}

/** The words of a search in the form of the search text; all of them must occur there, as parts of it. */
export function searchWordsOf(text: string): readonly string[] {
  return [...new Set(fold(text).split(/\s+/u))].filter((word) => word !== "");
}

function fold(text: string): string {
  return text.normalize("NFKC").toLowerCase();
}
