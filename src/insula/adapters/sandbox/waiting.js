// Promises: what a script awaits is queued as JSON text, the worker hands the queue to the parent
// and brings the answers back. `a` says whether this evaluation may wait at all.
const { G, Text, stringify, parse, apply, define, refuse } = C;
const { join } = Array.prototype, { toLowerCase, toUpperCase } = String.prototype;
const { then } = Promise.prototype, Later = Promise, Failure = C.kind(Error), WrongType = C.kind(TypeError);
const { keys } = Object, { iterator } = Symbol;
const waits = a, waiting = { __proto__: null };
let queue = [], asked = 0, outstanding = 0, state = 3, value;
const append = (list, item) => define(list, list.length, {
  __proto__: null, value: item, writable: true, configurable: true, enumerable: true,
});
const textOf = (list) => apply(join, ["[", apply(join, list, [","]), "]"], [""]);

C.pending = () => {
  state = 3;
  const result = C.value;
  C.value = undefined;
  const fail = (error) => { C.failure = error; state = 2; };
  const handlers = [
    (item) => { try { value = stringify(item, refuse); state = 0; } catch (error) { fail(error); } }, fail,
  ];
  try { apply(then, result, handlers); }
  catch { apply(then, new Later((resolve) => resolve(result)), handlers); } // only like a promise
};
C.settle = () => state === 0 ? value : state;
C.requests = () => {
  const list = queue;
  queue = [];
  return textOf(list);
};
C.ask = (kind, fields) => {
  if (!waits) throw new Failure(kind + " is not available here: only code steps may wait");
  if (outstanding >= 1000) throw new Failure("more than 1000 requests are waiting at once");
  return new Later((resolve, reject) => {
    const id = ++asked;
    outstanding++;
    fields.id = id;
    fields.kind = kind;
    append(queue, stringify(fields));
    waiting[id] = { __proto__: null, resolve, reject };
  });
};
C.answer = (id, error, told, body) => {
  const { resolve, reject } = waiting[id];
  delete waiting[id];
  outstanding--;
  if (error !== "") reject(new Failure(error));
  else if (told === "value") resolve(parse(body));
  else resolve(told === "" ? undefined : response(parse(told), body));
};

const pairs = (headers) => {
  const list = [];
  const add = (name, item) => {
    append(list, textOf([stringify(Text(name)), stringify(Text(item))]));
  };
  if (headers === undefined || headers === null) return "[]";
  if (typeof headers !== "object") throw new WrongType("fetch: headers must be an object");
  if (typeof headers[iterator] === "function") for (const [name, item] of headers) add(name, item);
  else {
    const names = keys(headers);
    for (let i = 0; i < names.length; i++) add(names[i], headers[names[i]]);
  }
  return textOf(list);
};
const response = (told, body) => {
  const get = (name) => {
    const wanted = apply(toLowerCase, Text(name), []);
    let found = null;
    for (let i = 0; i < told.headers.length; i++) {
      const header = told.headers[i];
      if (apply(toLowerCase, header[0], []) !== wanted) continue;
      found = found === null ? header[1] : found + ", " + header[1];
    }
    return found;
  };
  return {
    ok: told.status >= 200 && told.status < 300,
    status: told.status,
    url: told.url,
    headers: { get, has: (name) => get(name) !== null },
    text: async () => body,
    json: async () => parse(body),
  };
};
const fetch = (url, options) => {
  const { body, method, headers } = options ?? {};
  if (body !== undefined && body !== null && typeof body !== "string") {
    throw new WrongType("fetch: the body must be text; use JSON.stringify for objects");
  }
  return C.ask("fetch", {
    __proto__: null,
    url: Text(url),
    method: method === undefined ? "GET" : apply(toUpperCase, Text(method), []),
    headers: pairs(headers),
    body: body ?? null,
  });
};
define(G, "fetch", {
  __proto__: null, writable: true, configurable: true, enumerable: false, value: fetch,
});
