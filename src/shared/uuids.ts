// UUIDs as this program makes them (RFC 9562, version 7), told from everything else.

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** In small letters only: another spelling is another text, which names nothing here. */
export function isUuidV7(text: string): boolean {
  return UUID_V7.test(text);
}
