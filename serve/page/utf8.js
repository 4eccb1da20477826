// Byte ranges in texts. The server counts bytes of UTF-8, JavaScript counts UTF-16 units.

const encoder = new TextEncoder();
// A byte-order mark is a character of the text like any other.
const decoder = new TextDecoder("utf-8", {ignoreBOM: true});

const isInner = (byte) => (byte & 0xc0) === 0x80;

// What stands before, in and after bytes [start, end) of `text`. A range that cuts a character has
// the whole of it.
export function splitAtBytes(text, start, end) {
  const bytes = encoder.encode(text);
  start = Math.min(Math.max(start, 0), bytes.length);
  end = Math.min(Math.max(end, start), bytes.length);
  while (start > 0 && isInner(bytes[start])) --start;
  while (end < bytes.length && isInner(bytes[end])) ++end;
  return [[0, start], [start, end], [end, bytes.length]].map(
      ([from, to]) => decoder.decode(bytes.subarray(from, to)));
}
