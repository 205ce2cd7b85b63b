"""What `compress` would try, by recorded outcomes; its arithmetic; its report."""

import itertools
import zlib

import numpy as np

from golden import names, networks
from golden.digest import numbers_of
from golden.entries import add
from golden.training import parts

BUDGETS = {
    "accuracy": {"max_drop": 1.0},
    "half the MACs": {"max_drop": 1.0, "max_macs": 0.5},
    "time and bytes": {"max_drop": 0.5, "max_latency_ratio": 0.4, "max_bytes": 600},
    "gzip": {"max_drop": 1.0, "max_gzip_bytes": 300},
    "device": {"max_drop": 2.0, "max_flash_bytes": 9000, "max_ram_bytes": 2500},
    "memory": {"max_drop": 1.0, "max_memory": 2000, "max_bytes": 200},
}
EFFORTS = ("quick", "normal", "thorough")
CONV = "3x3 convolutions"
BITS = {"float16": 2.0, "int8x4": 0.5}
DROPS = {"float16": 0.0, "dynamic": 0.1, "int8": 0.4, "int8x4": 2.5, "int16x8": 0.05}


def _seen(dense, pruned):
    rows = [
        ("conv", CONV, 90_000, 1000, 0.5, 0.02, pruned),
        ("deep", "3x3 depthwise convolutions", 5000, 90, 0.2, 0.01, pruned),
        ("head", names.DENSE_GROUP, dense, dense, 0.1, 0.001, pruned),
    ]
    return names.recorded_look(rows, 1200, 0.03, pruned is not None)


LOOKS = {
    "small": lambda: _seen(100, 0.05),
    "dense": lambda: _seen(4000, None),
    "fragile": lambda: _seen(100, 0.3),
    "even": lambda: _seen(900, 0.0),
}


def _outcome(sensitive):
    """Costs as they might be: smaller is worse, and more so for a sensitive model."""

    def of(steps, mode, aware):
        if sensitive and any(step[0] == "low rank" for step in steps):
            return None
        macs, weights, zeros, drop = 1.0, 1.0, 0.0, DROPS[mode] * (0.3 if aware else 1.0)
        for word, amount, share in steps:
            if word in ("channels", "low rank", "dense ranks"):
                macs, weights = macs * amount, weights * (share or amount)
                drop += (2.5 if sensitive else 0.8) * (1 - macs * weights)
            drop -= 0.2 * amount if word == "longer" else 0
            zeros = amount if word == "zeros" else zeros
        drop += 0.9 * zeros**2
        size = int(1000 * weights * BITS.get(mode, 1.0)) + 60
        gz = int(size * (1 - 0.8 * zeros))
        return round(drop, 3), size, gz, round(0.8 * macs**0.7, 4), macs, int(1200 * macs)

    return of


def _by_chance(number):
    """Costs of all sorts, which a recipe has by its number."""

    def of(steps, mode, aware):
        rng = np.random.default_rng([number, zlib.crc32(repr((steps, mode, aware)).encode())])
        if rng.random() < 0.05:
            return None
        share = np.prod([amount if amount < 1 else 1.0 for _, amount, _ in steps] or [1.0])
        drop = rng.normal(DROPS[mode] + (1 - share) * number / 2 - 0.5 * aware, 0.5 + number / 6)
        size = int(1000 * share * BITS.get(mode, 1.0) * rng.uniform(0.8, 1.3))
        return round(drop, 3), size, int(size * rng.uniform(0.3, 0.9)), share**0.6, share, 1200

    return of


def _plans_by_chance(budget, effort, look):
    limits = BUDGETS[budget]
    made, *_ = names.decided(limits, effort, LOOKS[look]())
    tried = [names.planned(limits, effort, made, _by_chance(number)) for number in range(12)]
    return [[[*what, numbers_of(why)] for *what, why in recipes] for recipes in tried]


def _plan(budget, effort, look, sensitive):
    limits = BUDGETS[budget]
    made, values, reasons = names.decided(limits, effort, LOOKS[look]())
    tried = names.planned(limits, effort, made, _outcome(sensitive))
    said = [numbers_of(text) for text in reasons]
    return [values, said, [[*what, numbers_of(why)] for *what, why in tried]]


def _decided(budget, effort):
    _, values, reasons = names.decided(BUDGETS[budget], effort, LOOKS["dense"](), 3000, 500)
    return [values, [numbers_of(text) for text in reasons]]


def _known(on_device=True):
    rng = np.random.default_rng(21)
    found = []
    for i, mode in enumerate(("int8", "int8x4", "float16", "dynamic")):
        size = int(900 - 150 * i)
        costs = (round(0.3 * i, 2), size, size - 50, 0.7 - 0.1 * i, 1.0, 1500 - 100 * i)
        right = rng.random(200) > 0.1 * i
        device = {"flash_bytes": size + 3000, "ram_bytes": 2000 + i} if on_device else None
        found.append(names.candidate(names.recipe((), mode), costs, right, device=device))
    return found


def _arithmetic(budget):
    limits, known = BUDGETS[budget], _known()
    made, *_ = names.decided(limits, "thorough", LOOKS["dense"](), 3000, 500)
    asked = [names.amounts_asked(t, limits, known[:2], made) for t in ("channels", "dense ranks")]
    less = [names.amounts_again(0.6, 0.5, file, limits, made) for file in known[:2]]
    over = [names.excesses(limits, file) for file in known]
    return [asked, less, over, names.best_of(known, limits)]


def _beaten():
    known, rng = _known(on_device=False), np.random.default_rng(22)
    rows = itertools.product((0.1, 5.0, 30.0), (400, 800), (0.3, 0.8))
    return [names.is_beaten(rng.random(200) > row[0] / 50, row, known) for row in rows]


def _look(network):
    model = networks.build(network)
    x = np.round(255 * networks.inputs(model)).astype("uint8")
    file = names.to_file(model, "int8", x.astype("float32"))
    return names.look(model, file, x, True)


def _report():
    model, split = networks.build("residual"), parts()
    files = [names.to_file(model, mode, split.x_train) for mode in ("float32", "int8")]
    texts = names.compress_report(model, split, files, np.arange(len(split.y_test)))
    return [numbers_of(text) for text in texts]


def _search_report():
    space, rng = names.image_space((12, 12, 3), 4, "microcontroller"), np.random.default_rng(23)
    texts = names.search_report([space.sample(rng) for _ in range(4)], parts())
    return [numbers_of(text) for text in texts]


for _budget, _limits in BUDGETS.items():
    for _effort in EFFORTS:
        add(f"plan/decisions/{_budget}, {_effort}", _decided, _budget, _effort)
    add(f"plan/arithmetic/{_budget}", _arithmetic, _budget)
    if any(name.startswith("max_flash") for name in _limits):
        continue  # costs of a device are recorded for its arithmetic alone
    for _effort, _look_at in itertools.product(EFFORTS, LOOKS):
        _name = f"{_budget}, {_effort}, {_look_at}"
        add(f"plan/by chance/{_name}", _plans_by_chance, _budget, _effort, _look_at)
        for _sensitive in (False, True):
            _words = _name + ", sensitive" * _sensitive
            add(f"plan/tried/{_words}", _plan, _budget, _effort, _look_at, _sensitive)
add("plan/beaten", _beaten)
for _network in ("residual", "plain"):
    add(f"plan/look/{_network}", _look, _network)
add("report/compress", _report)
add("report/search", _search_report)
