// `util`: small members here, larger ones compiled on first use. `a` maps their names to sources;
// `b` is a random seed in hex.
const { G, F, Text, apply, define, parse, stringify, ask } = C;
const sources = parse(a), Failure = C.kind(Error), WrongType = C.kind(TypeError), wanted = Number;
const { charCodeAt, slice } = String.prototype, { fromCharCode } = String, { floor } = Math;
const made = { __proto__: null };
const capture = { __proto__: null, Intl: G.Intl, toExponential: Number.prototype.toExponential };
const part = (name) => made[name] ??= F("C", "capture", sources[name])(C, capture);
const ofFile = (name, aspect) => (file) => {
  if (file === undefined || file === null) throw new WrongType("util." + name + ": give a file");
  return ask("file", { __proto__: null, aspect, file: stringify(file) });
};
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const values = { __proto__: null, "-": 62, _: 63 };
for (let i = 0; i < 64; i++) values[letters[i]] = i;

const toBytes = (text) => {
  const bytes = { __proto__: null, length: 0 };
  for (let i = 0; i < text.length; i++) {
    let unit = apply(charCodeAt, text, [i]);
    if (unit >= 0xd800 && unit < 0xdc00 && i + 1 < text.length) {
      const low = apply(charCodeAt, text, [i + 1]);
      if (low >= 0xdc00 && low < 0xe000) { unit = 0x10000 + ((unit - 0xd800) << 10) + low - 0xdc00; i++; }
    }
    if (unit >= 0xd800 && unit < 0xe000) unit = 0xfffd;
    if (unit < 0x80) bytes[bytes.length++] = unit;
    else if (unit < 0x800) {
      bytes[bytes.length++] = 0xc0 | unit >> 6;
      bytes[bytes.length++] = 0x80 | unit & 63;
    } else if (unit < 0x10000) {
      bytes[bytes.length++] = 0xe0 | unit >> 12;
      bytes[bytes.length++] = 0x80 | unit >> 6 & 63;
      bytes[bytes.length++] = 0x80 | unit & 63;
    } else {
      bytes[bytes.length++] = 0xf0 | unit >> 18;
      bytes[bytes.length++] = 0x80 | unit >> 12 & 63;
      bytes[bytes.length++] = 0x80 | unit >> 6 & 63;
      bytes[bytes.length++] = 0x80 | unit & 63;
    }
  }
  return bytes;
};
capture.toBytes = toBytes;
const encode = (text) => {
  const bytes = toBytes(Text(text));
  let out = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const three = bytes[i] << 16 | (bytes[i + 1] ?? 0) << 8 | (bytes[i + 2] ?? 0);
    out += letters[three >> 18] + letters[three >> 12 & 63]
      + (i + 1 < bytes.length ? letters[three >> 6 & 63] : "=")
      + (i + 2 < bytes.length ? letters[three & 63] : "=");
  }
  return out;
};
const decode = (text) => {
  let bits = 0, held = 0, out = "", need = 0, unit = 0, least = 0;
  const put = (byte) => {
    if (need > 0) {
      if (byte >> 6 !== 2) throw new Failure("util.base64.decode: the bytes are not UTF-8 text");
      unit = unit << 6 | byte & 63;
      if (--need > 0) return;
      if (unit < least || unit > 0x10ffff || (unit >= 0xd800 && unit < 0xe000)) {
        throw new Failure("util.base64.decode: the bytes are not UTF-8 text");
      }
    } else if (byte < 0x80) unit = byte;
    else if (byte >= 0xc2 && byte < 0xe0) { unit = byte & 31; need = 1; least = 0x80; return; }
    else if (byte >= 0xe0 && byte < 0xf0) { unit = byte & 15; need = 2; least = 0x800; return; }
    else if (byte >= 0xf0 && byte < 0xf5) { unit = byte & 7; need = 3; least = 0x10000; return; }
    else throw new Failure("util.base64.decode: the bytes are not UTF-8 text");
    out += unit < 0x10000 ? fromCharCode(unit)
      : fromCharCode(0xd800 + (unit - 0x10000 >> 10), 0xdc00 + (unit - 0x10000 & 1023));
  };
  const source = Text(text);
  for (let i = 0; i < source.length; i++) {
    const letter = source[i];
    if (letter === "=" || letter === "\n" || letter === "\r" || letter === " ") continue;
    const six = values[letter];
    if (six === undefined) throw new Failure("util.base64.decode: the text is not base64");
    bits = bits << 6 | six;
    held += 6;
    if (held >= 8) { held -= 8; put(bits >> held & 255); bits &= (1 << held) - 1; }
  }
  if (need > 0) throw new Failure("util.base64.decode: the bytes are not UTF-8 text");
  return out;
};
const base64 = (text) => encode(text);
base64.encode = encode;
base64.decode = decode;

let counter = 0;
const uuid = () => {
  const hex = part("hash")("sha256", b + ":" + counter++);
  const cut = (from, to) => apply(slice, hex, [from, to]);
  const variant = "89ab"[values[hex[16]] & 3];
  return cut(0, 8) + "-" + cut(8, 12) + "-4" + cut(13, 16) + "-" + variant + cut(17, 20) + "-" + cut(20, 32);
};
const sleep = (ms) => {
  const milliseconds = wanted(ms);
  if (!(milliseconds >= 0 && milliseconds <= 86400000)) {
    throw new WrongType("util.sleep: milliseconds must be a number from 0 to 86400000");
  }
  return ask("sleep", { __proto__: null, milliseconds });
};
define(G, "util", {
  __proto__: null, writable: true, configurable: true, enumerable: false,
  value: {
    base64, uuid, sleep,
    formatNumber: (n, options) => part("format").number(n, options),
    formatCurrency: (n, options) => part("format").currency(n, options),
    hash: (algorithm, text) => part("hash")(algorithm, text),
    getFileContents: ofFile("getFileContents", "contents"),
    getFileText: ofFile("getFileText", "text"),
    getFileImages: ofFile("getFileImages", "images"),
    getFileUrl: ofFile("getFileUrl", "url"),
  },
});
