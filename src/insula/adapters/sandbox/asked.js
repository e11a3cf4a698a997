// What conditions, expectations and loops ask of a value: whether it is true as JavaScript means it,
// that beside the value, or an item.
const { stringify, refuse } = C;
C.asked = (what, item) => {
  if (what === "truth") return item ? "true" : "false";
  if (what === "judged") return (item ? "[true," : "[false,") + (stringify(item, refuse) ?? "null") + "]";
  if (item === undefined || item === null || item === false) return undefined;
  if (typeof item === "number" && item - item !== 0) {
    throw C.refused = { __proto__: null, key: "", kind: "number that is not finite" };
  }
  return stringify(item, refuse) ?? "null";
};
