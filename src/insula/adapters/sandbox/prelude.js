// What every fresh context begins with. It is compiled for each evaluation, so it is kept tiny;
// larger parts are compiled only where a script can need them. `C` holds what is captured before
// foreign code runs: a script that changes prototypes or globals harms its own evaluation only. No
// global leads to it. Errors of our own are made through `C.kind`, which remembers them. The function that is returned runs trusted code (`code`), or a script.
(function () {
  "use strict";
  const { stringify, parse } = JSON, { apply } = Reflect, F = Function, G = globalThis;
  const A = async function () {}.constructor;
  const C = {
    __proto__: null, G, F, stringify, parse, apply, Text: String, slice: String.prototype.slice,
    define: Object.defineProperty, Syntax: SyntaxError,
  };
  const refuse = (key, item) => {
    const kind = typeof item;
    if (kind === "function" || kind === "symbol" || kind === "bigint") {
      throw C.refused = { __proto__: null, key, kind };
    }
    return item;
  };
  C.kind = (Kind) => function (message) { return C.own = new Kind(message); };
  C.finish = (item) => item === undefined ? item : stringify(item, refuse);
  const next = (item) => {
    if (item === undefined || item === null || item === false) return undefined;
    if (typeof item === "number" && item - item !== 0) {
      throw C.refused = { __proto__: null, key: "", kind: "number that is not finite" };
    }
    return stringify(item, refuse) ?? "null";
  };
  return (code, a, b, c, d) => {
    if (code) return F("C,a,b,c,d", code)(C, a, b, c, d);
    try {
      const Compiled = c ? A : F;
      let compiled;
      try { compiled = Compiled("return (" + a + "\n)"); } catch { compiled = Compiled(b); }
      const result = apply(compiled, G, []);
      if (typeof result !== "object" || result === null || typeof result.then !== "function") {
        return d === "truth" ? (result ? "true" : "false") : d === "item" ? next(result) : C.finish(result);
      }
      C.value = result;
      return 3;
    } catch (error) {
      C.failure = error;
      return 2;
    }
  };
})()
