// The console. Lines are kept as JSON text; `a` is how many characters of them there may be.
const { G, Text, stringify, apply, define } = C;
const now = Date.now, { join } = Array.prototype, Failure = Error, Own = C.kind(Error);
const lines = [];
let room = a;
const append = (list, item) => define(list, list.length, {
  __proto__: null, value: item, writable: true, configurable: true, enumerable: true,
});
const show = (item) => {
  switch (typeof item) {
    case "string": case "number": case "boolean": return stringify(item);
    case "undefined": return '"undefined"';
    case "bigint": return stringify(Text(item) + "n");
    case "symbol": return stringify(Text(item));
    case "function": return '"[function]"';
  }
  try {
    if (item instanceof Failure) return stringify(Text(item.name) + ": " + Text(item.message));
    return stringify(item) ?? '"undefined"';
  } catch {
    return '"[object that cannot be shown]"';
  }
};
const log = (level) => (...items) => {
  let line = "";
  if (room >= 0) {
    const shown = [];
    for (let i = 0; i < items.length && room >= 0; i++) {
      const text = show(items[i]);
      room -= text.length + 1;
      append(shown, text);
    }
    line = apply(join, [
      '{"level":"', level, '","time":', now(), ',"args":[', apply(join, shown, [","]), "]}",
    ], [""]);
    room -= 45;
  }
  if (room < 0) {
    C.overLogs = true;
    throw new Own("the logs have reached their limit (limits.logs)");
  }
  append(lines, line);
};
define(G, "console", {
  __proto__: null, writable: true, configurable: true, enumerable: false,
  value: {
    log: log("info"), info: log("info"), warn: log("warn"), error: log("error"), debug: log("debug"),
  },
});
C.logs = () => lines.length ? apply(join, ["[", apply(join, lines, [","]), "]"], [""]) : undefined;
