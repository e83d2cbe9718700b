// A strict reader of comma-separated values (RFC 4180): anything the grammar does not allow is an error.

/** Records of cells. Every record ends with CRLF; quotes stand around a whole cell or inside a quoted one, doubled. */
export function readCsv(text: string): string[][] {
  const records: string[][] = [];
  let record: string[] = [];
  let at = 0;
  while (at < text.length) {
    const { cell, end } = text[at] === '"' ? quotedCell(text, at) : plainCell(text, at);
    record.push(cell);
    if (text[end] === ",") {
      at = end + 1;
    } else if (text.startsWith("\r\n", end)) {
      records.push(record);
      record = [];
      at = end + 2;
    } else throw new Error(`a cell ends with neither a comma nor CRLF at ${end}`);
  }
  if (record.length > 0) throw new Error("the last record has no line end");
  const [first] = records;
  if (records.some(({ length }) => length !== first!.length)) throw new Error("records differ in length");
  return records;
}

function quotedCell(text: string, start: number): { cell: string; end: number } {
  let cell = "";
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] !== '"') cell += text[at];
    else if (text[at + 1] === '"') cell += text[at++];
    else return { cell, end: at + 1 };
  }
  throw new Error("a quoted cell does not end");
}

function plainCell(text: string, start: number): { cell: string; end: number } {
  let end = start;
  while (end < text.length && !",\r\n".includes(text[end]!)) {
    if (text[end] === '"') throw new Error(`a quote in the midst of a cell at ${end}`);
    end++;
  }
  return { cell: text.slice(start, end), end };
}
