// sha256, sha512, sha1 and md5 of a text's UTF-8 bytes, in hex (FIPS 180-4, RFC 1321). SHA-256 takes the
// upper halves of the 64-bit constants.
const { Text } = C, { toBytes } = capture, WrongType = C.kind(TypeError);
const K = "428a2f98d728ae227137449123ef65cdb5c0fbcfec4d3b2fe9b5dba58189dbbc3956c25bf348b538" +
  "59f111f1b605d019923f82a4af194f9bab1c5ed5da6d8118d807aa98a303024212835b0145706fbe" +
  "243185be4ee4b28c550c7dc3d5ffb4e272be5d74f27b896f80deb1fe3b1696b19bdc06a725c71235" +
  "c19bf174cf692694e49b69c19ef14ad2efbe4786384f25e30fc19dc68b8cd5b5240ca1cc77ac9c65" +
  "2de92c6f592b02754a7484aa6ea6e4835cb0a9dcbd41fbd476f988da831153b5983e5152ee66dfab" +
  "a831c66d2db43210b00327c898fb213fbf597fc7beef0ee4c6e00bf33da88fc2d5a79147930aa725" +
  "06ca6351e003826f142929670a0e6e7027b70a8546d22ffc2e1b21385c26c9264d2c6dfc5ac42aed" +
  "53380d139d95b3df650a73548baf63de766a0abb3c77b2a881c2c92e47edaee692722c851482353b" +
  "a2bfe8a14cf10364a81a664bbc423001c24b8b70d0f89791c76c51a30654be30d192e819d6ef5218" +
  "d69906245565a910f40e35855771202a106aa07032bbd1b819a4c116b8d2d0c81e376c085141ab53" +
  "2748774cdf8eeb9934b0bcb5e19b48a8391c0cb3c5c95a634ed8aa4ae3418acb5b9cca4f7763e373" +
  "682e6ff3d6b2b8a3748f82ee5defb2fc78a5636f43172f6084c87814a1f0ab728cc702081a6439ec" +
  "90befffa23631e28a4506cebde82bde9bef9a3f7b2c67915c67178f2e372532bca273eceea26619c" +
  "d186b8c721c0c207eada7dd6cde0eb1ef57d4f7fee6ed17806f067aa72176fba0a637dc5a2c898a6" +
  "113f9804bef90dae1b710b35131c471b28db77f523047d8432caab7b40c724933c9ebe0a15c9bebc" +
  "431d67c49c100d4c4cc5d4becb3e42b6597f299cfc657e2a5fcb6fab3ad6faec6c44198c4a475817";
const H = "6a09e667f3bcc908bb67ae8584caa73b3c6ef372fe94f82ba54ff53a5f1d36f1510e527fade682d1" +
  "9b05688c2b3e6c1f1f83d9abfb41bd6b5be0cd19137e2179";
const words = (hex) => {
  const list = new Int32Array(hex.length / 8);
  for (let i = 0; i < list.length; i++) list[i] = parseInt(hex.slice(8 * i, 8 * i + 8), 16);
  return list;
};
const constants = words(K), initial = words(H);

const padded = (bytes, block, little) => {
  const length = bytes.length, tail = block === 128 ? 17 : 9;
  const data = new Uint8Array(Math.ceil((length + tail) / block) * block);
  for (let i = 0; i < length; i++) data[i] = bytes[i];
  data[length] = 0x80;
  let bits = length * 8;
  for (let i = 0; i < 8; i++) {
    data[little ? data.length - 8 + i : data.length - 1 - i] = bits % 256;
    bits = Math.floor(bits / 256);
  }
  return data;
};
const big = (d, i) => d[i] << 24 | d[i + 1] << 16 | d[i + 2] << 8 | d[i + 3];
const small = (d, i) => d[i] | d[i + 1] << 8 | d[i + 2] << 16 | d[i + 3] << 24;
const hex = (list) => {
  let out = "";
  for (let i = 0; i < list.length; i++) out += (list[i] >>> 0).toString(16).padStart(8, "0");
  return out;
};
const left = (x, n) => x << n | x >>> 32 - n;
const right = (x, n) => x >>> n | x << 32 - n;

const sha256 = (bytes) => {
  const data = padded(bytes, 64), h = new Int32Array(8), w = new Int32Array(64);
  for (let i = 0; i < 8; i++) h[i] = initial[2 * i];
  for (let at = 0; at < data.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = big(data, at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      w[i] = w[i - 16] + (right(x, 7) ^ right(x, 18) ^ x >>> 3) + w[i - 7]
        + (right(y, 17) ^ right(y, 19) ^ y >>> 10);
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 64; i++) {
      const one = k + (right(e, 6) ^ right(e, 11) ^ right(e, 25)) + (e & f ^ ~e & g) + constants[2 * i] + w[i] | 0;
      const two = (right(a, 2) ^ right(a, 13) ^ right(a, 22)) + (a & b ^ a & c ^ b & c) | 0;
      k = g; g = f; f = e; e = d + one | 0; d = c; c = b; b = a; a = one + two | 0;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += k;
  }
  return hex(h);
};

const sha1 = (bytes) => {
  const data = padded(bytes, 64), w = new Int32Array(80);
  const h = new Int32Array([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0]);
  for (let at = 0; at < data.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = big(data, at + 4 * i);
    for (let i = 16; i < 80; i++) w[i] = left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    let [a, b, c, d, e] = h;
    for (let i = 0; i < 80; i++) {
      const f = i < 20 ? (b & c | ~b & d) + 0x5a827999 : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
        : i < 60 ? (b & c | b & d | c & d) + 0x8f1bbcdc : (b ^ c ^ d) + 0xca62c1d6;
      const next = left(a, 5) + f + e + w[i] | 0;
      e = d; d = c; c = left(b, 30); b = a; a = next;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
  }
  return hex(h);
};

const md5 = (bytes) => {
  const data = padded(bytes, 64, true), turns = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
  const h = new Int32Array([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]);
  for (let at = 0; at < data.length; at += 64) {
    let [a, b, c, d] = h;
    for (let i = 0; i < 64; i++) {
      let f, g;
      if (i < 16) { f = b & c | ~b & d; g = i; }
      else if (i < 32) { f = d & b | ~d & c; g = (5 * i + 1) % 16; }
      else if (i < 48) { f = b ^ c ^ d; g = (3 * i + 5) % 16; }
      else { f = c ^ (b | ~d); g = 7 * i % 16; }
      const sum = a + f + Math.floor(Math.abs(Math.sin(i + 1)) * 4294967296) + small(data, at + 4 * g) | 0;
      a = d; d = c; c = b; b = b + left(sum, turns[(i >> 4) * 4 + i % 4]) | 0;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d;
  }
  const swapped = new Int32Array(4), raw = new Uint8Array(h.buffer);
  for (let i = 0; i < 4; i++) swapped[i] = big(raw, 4 * i);
  return hex(swapped);
};

// 64-bit words as pairs: the upper half at 2 i, the lower at 2 i + 1.
const sha512 = (bytes) => {
  const data = padded(bytes, 128), h = initial.slice(), w = new Int32Array(160), s = new Int32Array(16);
  let high = 0, low = 0;
  const add = (up, down) => {
    const sum = (low >>> 0) + (down >>> 0);
    high = high + up + (sum > 4294967295 ? 1 : 0) | 0;
    low = sum | 0;
  };
  const turn = (x, y, n) => n < 32 ? x >>> n | y << 32 - n : n === 32 ? y : y >>> n - 32 | x << 64 - n;
  const three = (x, y, p, q, r) => [
    turn(x, y, p) ^ turn(x, y, q) ^ turn(x, y, r), turn(y, x, p) ^ turn(y, x, q) ^ turn(y, x, r),
  ];
  const shifted = (x, y, p, q, n) => [
    turn(x, y, p) ^ turn(x, y, q) ^ x >>> n, turn(y, x, p) ^ turn(y, x, q) ^ (y >>> n | x << 32 - n),
  ];
  for (let at = 0; at < data.length; at += 128) {
    for (let i = 0; i < 32; i++) w[i] = big(data, at + 4 * i);
    for (let i = 32; i < 160; i += 2) {
      const one = shifted(w[i - 30], w[i - 29], 1, 8, 7), two = shifted(w[i - 4], w[i - 3], 19, 61, 6);
      high = w[i - 32]; low = w[i - 31];
      add(one[0], one[1]); add(w[i - 14], w[i - 13]); add(two[0], two[1]);
      w[i] = high; w[i + 1] = low;
    }
    s.set(h);
    for (let i = 0; i < 160; i += 2) {
      const one = three(s[8], s[9], 14, 18, 41), two = three(s[0], s[1], 28, 34, 39);
      high = s[14]; low = s[15];
      add(one[0], one[1]);
      add(s[8] & s[10] ^ ~s[8] & s[12], s[9] & s[11] ^ ~s[9] & s[13]);
      add(constants[i], constants[i + 1]); add(w[i], w[i + 1]);
      const up = high, down = low;
      add(two[0], two[1]);
      add(s[0] & s[2] ^ s[0] & s[4] ^ s[2] & s[4], s[1] & s[3] ^ s[1] & s[5] ^ s[3] & s[5]);
      const firstHigh = high, firstLow = low;
      high = s[6]; low = s[7];
      add(up, down);
      s.copyWithin(2, 0, 14);
      s[0] = firstHigh; s[1] = firstLow; s[8] = high; s[9] = low;
    }
    for (let i = 0; i < 16; i += 2) {
      high = h[i]; low = h[i + 1];
      add(s[i], s[i + 1]);
      h[i] = high; h[i + 1] = low;
    }
  }
  return hex(h);
};

const algorithms = { __proto__: null, sha256, sha512, sha1, md5 };
return (algorithm, text) => {
  const digest = algorithms[algorithm];
  if (digest === undefined) throw new WrongType("util.hash: the algorithm must be sha256, sha512, sha1 or md5");
  if (typeof text !== "string") throw new WrongType("util.hash: the second argument must be text");
  return digest(toBytes(text));
};
