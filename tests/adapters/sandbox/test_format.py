"""The small number formatter of the default lane against the real ``Intl`` of V8."""

import json
import random

from insula.adapters.sandbox.pool import SandboxPool
from insula.engine.ports import Lane, Limits

from .conftest import activity, evaluation

LIMITS = Limits(cpu=10, wall=20)
NUMBERS = [
    0,
    -0.0,
    1,
    -1,
    0.5,
    1.005,
    -1.005,
    2.5,
    0.045,
    999.995,
    999999.5,
    1e21,
    1.5e-7,
    123456.789,
]
UNKNOWN_SYMBOLS = ("CHF", "ISK", "KWD")
SIGNS = ("always", "never", "exceptZero", "negative", "auto")
CURRENCIES = [
    "AUD",
    "BRL",
    "CNY",
    "ILS",
    "TWD",
    "VND",
    "XCD",
    "XOF",
    "CAD",
    "USD",
    "EUR",
    "JPY",
    "KWD",
    "CHF",
    "GBP",
    "INR",
    "XAF",
    "ISK",
]


def case(chance: random.Random) -> tuple[float, dict[str, object]]:
    value = (
        chance.choice(NUMBERS)
        if chance.random() < 0.3
        else chance.choice((1, -1)) * round(10 ** chance.uniform(-6, 13), chance.randrange(8))
    )
    options: dict[str, object] = {**kind(chance), **digits(chance)}
    if chance.random() < 0.15:
        options["minimumIntegerDigits"] = chance.randrange(1, 5)
    if chance.random() < 0.2:
        options["useGrouping"] = False
    if chance.random() < 0.2:
        options["signDisplay"] = chance.choice(SIGNS)
    return value, options


def kind(chance: random.Random) -> dict[str, object]:
    style = chance.choice(["decimal", "percent", "currency", None])
    options: dict[str, object] = {"style": style} if style else {}
    if style == "currency":
        options["currency"] = chance.choice(CURRENCIES)
        if chance.random() < 0.4 and options["currency"] not in UNKNOWN_SYMBOLS:
            options["currencyDisplay"] = chance.choice(["code", "symbol", "narrowSymbol"])
        if chance.random() < 0.2:
            options["currencySign"] = "accounting"
    elif chance.random() < 0.1:
        options["notation"] = "compact"
        options["compactDisplay"] = chance.choice(["short", "long"])
    return options


def digits(chance: random.Random) -> dict[str, object]:
    choice, high = chance.random(), chance.randrange(1, 8)
    name = "FractionDigits" if choice < 0.4 else "SignificantDigits"
    if choice > 0.65:
        return {}
    options: dict[str, object] = {f"maximum{name}": high}
    if chance.random() < 0.5:
        options[f"minimum{name}"] = chance.randrange(1, high + 1)
    return options


async def formatted(pool: SandboxPool, lane: Lane, wanted: object) -> list[str]:
    script = "input.map(([value, options]) => util.formatNumber(value, options))"
    limits = Limits(cpu=10, wall=20)
    done = await pool.evaluate(
        evaluation(script, lane=lane, limits=limits, input=json.dumps(wanted)), activity()
    )
    found: list[str] = json.loads(bytes(done.outputs[0] or b""))
    return found


async def test_both_lanes_write_numbers_alike(pool: SandboxPool) -> None:
    chance = random.Random(7)
    wanted = [case(chance) for _ in range(1_500)]
    ours = await formatted(pool, "quickjs", wanted)
    theirs = await formatted(pool, "v8", wanted)
    wrong = [
        (given, mine, true)
        for given, mine, true in zip(wanted, ours, theirs, strict=True)
        if mine != true
    ]
    assert not wrong, (len(wrong), wrong[:10])
