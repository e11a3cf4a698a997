// What every fresh context begins with. It is compiled for each evaluation, so it is kept tiny;
// larger parts are compiled only where a script can need them. `C` holds what is captured before
// foreign code runs: a script that changes prototypes or globals harms its own evaluation only. No
// global leads to it. Errors of our own are made through `C.kind`, which remembers them. The function
// that is returned runs trusted code (`code`), or a script: `a` as an expression or else `b` as a
// body, waiting if `c` says so; `d` names what is asked of the value, in place of the value (asked.js).
(function () {
  "use strict";
  const { stringify, parse } = JSON, { apply } = Reflect, F = Function, G = globalThis;
  const C = {
    __proto__: null, G, F, stringify, parse, apply, Text: String, slice: String.prototype.slice,
    define: Object.defineProperty, Syntax: SyntaxError,
    refuse(key, item) {
      const kind = typeof item;
      if (kind === "function" || kind === "symbol" || kind === "bigint") {
        throw C.refused = { __proto__: null, key, kind };
      }
      return item;
    },
    kind: (Kind) => function (message) { return C.own = new Kind(message); },
  };
  return (code, a, b, c, d) => {
    if (code) return F("C,a,b,c,d", code)(C, a, b, c, d);
    try {
      const Compiled = c ? (async () => {}).constructor : F;
      let compiled;
      try { compiled = Compiled("return (" + a + "\n)"); } catch { compiled = Compiled(b); }
      const result = apply(compiled, G, []);
      if (typeof result !== "object" || result === null || typeof result.then !== "function") {
        return d ? C.asked(d, result) : stringify(result, C.refuse);
      }
      C.value = result;
      return 3;
    } catch (error) {
      C.failure = error;
      return 2;
    }
  };
})()
