// Turns what a script threw into words. Compiled after the failure, so it relies on `C` alone.
const { stringify, apply, slice, Text, refused } = C, error = C.failure;
const cut = (text, length) => apply(slice, text, [0, length]);
const told = { __proto__: null, name: "Error", message: "", stack: "", own: false, syntax: false };
try {
  if (refused !== undefined && error === refused) {
    const place = refused.key === "" ? "the value" : "the value of " + cut(stringify(refused.key), 200);
    told.name = "TypeError";
    told.message = place + " is a " + refused.kind + ", which JSON cannot hold";
    if (refused.kind === "bigint") told.message += ": turn it into a number or into text";
  } else if ((typeof error === "object" && error !== null) || typeof error === "function") {
    const { name, message, stack } = error;
    if (name === undefined && message === undefined) {
      told.message = "thrown: " + cut(stringify(error) ?? "function", 2000);
    } else {
      told.name = cut(Text(name), 100);
      told.message = cut(Text(message), 2000);
      told.stack = cut(Text(stack), 4000);
      told.own = error === C.own;
      told.syntax = error instanceof C.Syntax;
    }
  } else told.message = "thrown: " + cut(Text(error), 2000);
} catch {
  told.message = "an error that cannot be shown";
}
return stringify(told);
