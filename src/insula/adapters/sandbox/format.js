// Numbers as en-US writes them. Where the engine has Intl that is used; elsewhere this covers
// decimal, percent and currency with the usual options. Like Intl, it rounds the shortest decimal
// text of a number, half away from zero.
const { Text } = C, { Intl } = capture, WrongType = C.kind(TypeError), WrongRange = C.kind(RangeError);
const known = [
  "style", "currency", "currencyDisplay", "currencySign", "signDisplay", "useGrouping", "notation", "compactDisplay",
  "minimumIntegerDigits", "minimumFractionDigits", "maximumFractionDigits",
  "minimumSignificantDigits", "maximumSignificantDigits",
];
const symbols = {
  __proto__: null, USD: "$", EUR: "€", GBP: "£", JPY: "¥", CNY: "CN¥", INR: "₹", KRW: "₩", BRL: "R$", CAD: "CA$",
  AUD: "A$", NZD: "NZ$", MXN: "MX$", HKD: "HK$", ILS: "₪", VND: "₫", TWD: "NT$", PHP: "₱", XAF: "FCFA",
  XOF: "F\u202fCFA", XPF: "CFPF", XCD: "EC$",
};
const digitsOf = {
  __proto__: null, JPY: 0, KRW: 0, VND: 0, CLP: 0, ISK: 0, PYG: 0, UGX: 0, RWF: 0, XAF: 0, XOF: 0, XPF: 0, KMF: 0,
  GNF: 0, DJF: 0, BIF: 0, VUV: 0, UYI: 0, BHD: 3, IQD: 3, JOD: 3, KWD: 3, LYD: 3, OMR: 3, TND: 3, CLF: 4, UYW: 4,
};
const number = (value) => {
  if (typeof value === "number" || (typeof value === "string" && value.trim() !== "")) {
    const found = +value;
    if (found === found || typeof value === "number") return found;
  }
  throw new WrongType("util.formatNumber and util.formatCurrency need a number");
};
const whole = (options, name, least, most, otherwise) => {
  const given = options[name];
  if (given === undefined) return otherwise;
  const found = Math.floor(+given);
  if (!(+given >= least && +given <= most)) throw new WrongRange(name + " value is out of range.");
  return found;
};

// A finite number that is not negative, as digits with the point after `point` of them.
const decimal = (value) => {
  const [mantissa, exponent] = value.toExponential().split("e");
  return { digits: mantissa.replace(".", ""), point: +exponent + 1 };
};
const round = (given, keep) => { // keep: how many leading digits stay
  let { digits, point } = given;
  if (keep >= digits.length) return given;
  if (keep < 0) return { digits: "0", point: 1 };
  const up = digits[keep] >= "5";
  let kept = digits.slice(0, keep).split("");
  if (up) {
    let i = keep - 1;
    while (i >= 0 && kept[i] === "9") kept[i--] = "0";
    if (i >= 0) kept[i] = Text(+kept[i] + 1);
    else { kept = ["1", ...kept]; point++; }
  }
  digits = kept.join("").replace(/0+$/, "");
  return digits === "" ? { digits: "0", point: 1 } : { digits, point };
};
const settings = (options, style, fraction, compact) => {
  const integers = whole(options, "minimumIntegerDigits", 1, 21, 1);
  if (options.minimumSignificantDigits !== undefined || options.maximumSignificantDigits !== undefined) {
    const least = whole(options, "minimumSignificantDigits", 1, 21, 1);
    return { integers, significant: true, least, most: whole(options, "maximumSignificantDigits", least, 21, 21) };
  }
  let least = whole(options, "minimumFractionDigits", 0, 100, undefined);
  let most = whole(options, "maximumFractionDigits", 0, 100, undefined);
  if (compact && least === undefined && most === undefined) return { integers, compact: true, least: 0, most: 0 };
  const usual = style === "percent" ? 0 : style === "currency" ? fraction : 3;
  if (least === undefined) least = Math.min(style === "currency" ? fraction : 0, most ?? 100);
  if (most === undefined) most = Math.max(usual, least);
  if (least > most) throw new WrongRange("maximumFractionDigits value is out of range.");
  return { integers, least, most };
};
const rounded = (given, set) => {
  if (set.significant) return round(given, set.most);
  if (set.compact) return round(given, Math.max(2, given.point));
  return round(given, given.point + set.most);
};
const written = (given, set, grouping, least = 0) => {
  let { digits, point } = given;
  let integer = point > 0 ? digits.slice(0, point).padEnd(point, "0") : "0";
  let fraction = point > 0 ? digits.slice(point) : digits === "0" ? "" : "0".repeat(-point) + digits;
  if (set.significant) {
    const leading = integer === "0" ? fraction.length - fraction.replace(/^0+/, "").length : 0;
    const have = integer === "0" && digits !== "0" ? 0 : integer.length;
    fraction = fraction.padEnd(Math.max(0, set.least - have + leading), "0");
  } else fraction = fraction.padEnd(set.least, "0");
  integer = integer.padStart(set.integers, "0");
  if (grouping && integer.length >= 4 + least) integer = integer.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === "" ? integer : integer + "." + fraction;
};
const shrink = (given, set, grouping) => { // 1.2K, 35M
  const long = [" thousand", " million", " billion", " trillion"], short = ["K", "M", "B", "T"];
  const step = (point) => Math.max(0, Math.min(4, Math.floor((point - 1) / 3)));
  let power = given.digits === "0" ? 0 : step(given.point);
  let result = rounded({ digits: given.digits, point: given.point - 3 * power }, set);
  if (power < 4 && result.point > 3 && result.digits !== "0") {
    power++;
    result = rounded({ digits: given.digits, point: given.point - 3 * power }, set);
  }
  const name = power === 0 ? "" : (set.long ? long : short)[power - 1];
  return [result, written(result, set, grouping, 1) + name];
};
const sign = (negative, zero, display) => {
  switch (display) {
    case undefined: case "auto": return negative ? "-" : "";
    case "always": return negative ? "-" : "+";
    case "never": return "";
    case "exceptZero": return zero ? "" : negative ? "-" : "+";
    case "negative": return negative && !zero ? "-" : "";
  }
  throw new WrongRange("Value " + Text(display) + " out of range for Intl.NumberFormat options property signDisplay");
};
const currencyMark = (options) => {
  if (options.currency === undefined) throw new WrongType("Currency code is required with currency style.");
  const code = Text(options.currency).toUpperCase();
  if (!/^[A-Z]{3}$/.test(code)) throw new WrongRange("Invalid currency code : " + Text(options.currency));
  const display = options.currencyDisplay ?? "symbol";
  if (display === "code") return [code, code + "\u00a0"];
  let symbol = symbols[code] ?? code;
  if (display === "narrowSymbol") {
    if (symbol === code) throw new WrongRange("util.formatCurrency: the narrow symbol of " + code + " needs Intl; name Intl in the script to have it");
    if (code !== "BRL") symbol = symbol.replace(/^[A-Z]+(?=[$¥])/, "");
  }
  return [code, /[A-Z]$/.test(symbol) ? symbol + "\u00a0" : symbol];
};
const check = (options) => {
  for (const name of Object.keys(options)) {
    if (options[name] !== undefined && !known.includes(name)) {
      throw new WrongRange("util.formatNumber: the option " + name + " needs Intl; name Intl in the script to have it");
    }
  }
  const style = options.style ?? "decimal";
  if (!["decimal", "percent", "currency"].includes(style)
    || ![undefined, "symbol", "narrowSymbol", "code"].includes(options.currencyDisplay)
    || ![undefined, "standard", "compact"].includes(options.notation)) {
    throw new WrongRange("util.formatNumber: this style needs Intl; name Intl in the script to have it");
  }
  return style;
};
const format = (value, options) => {
  const style = check(options), compact = options.notation === "compact";
  const [code, mark] = style === "currency" ? currencyMark(options) : ["", ""];
  const set = settings(options, style, digitsOf[code] ?? 2, compact);
  set.long = options.compactDisplay === "long";
  const negative = value < 0 || Object.is(value, -0);
  let grouping = options.useGrouping ?? true, body, zero = false;
  if (grouping === "false" || grouping === false) grouping = false;
  if (value !== value) body = "NaN";
  else if (Math.abs(value) === Infinity) body = "∞";
  else {
    const given = decimal(Math.abs(value));
    if (style === "percent" && given.digits !== "0") given.point += 2;
    let result;
    if (compact) [result, body] = shrink(given, set, grouping);
    else body = written(result = rounded(given, set), set, grouping);
    zero = result.digits === "0";
  }
  if (value !== value) zero = true;
  const before = sign(negative, zero, options.signDisplay);
  if (before === "-" && options.currencySign === "accounting" && mark) return "(" + mark + body + ")";
  return before + mark + body + (style === "percent" ? "%" : "");
};
const any = (value, options) => Intl
  ? new Intl.NumberFormat("en-US", options).format(number(value)) : format(number(value), options ?? {});
return {
  number: any,
  currency: (value, options) => any(value, { ...options, currency: options?.currency ?? "USD", style: "currency" }),
};
