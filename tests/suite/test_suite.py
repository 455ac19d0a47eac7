"""Suites: what is read, what is resolved, and the sentence for each mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from traitscope.core import GenerationConfig
from traitscope.errors import SuiteError
from traitscope.paths import BUNDLED_SUITES, BUNDLED_TRAITS, cache_dir
from traitscope.suite import OVERRIDES, GenerationTable, load_suite, suite_from_dict

SMALL = """
model = "pocket"
traits = ["sycophancy"]
{top}
[generation]
{generation}
[prompts.one]
texts = ["Is it so?", "Why?"]
{prompts}
{rest}
"""
EXPECT = """
[[expect]]
text = "One above the other"
trait = "sycophancy"
higher = "Is it so?"
lower = "Why?"
"""


def small(folder: Path, **parts: str) -> Path:
    blanks = dict.fromkeys(("top", "generation", "prompts", "rest"), "")
    path = folder / "small.toml"
    path.write_text(SMALL.format(**{**blanks, **parts}), encoding="utf-8")
    return path


def mistakes(path: Path | str, overrides: dict[str, object] | None = None) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        load_suite(path, overrides)
    str(caught.value).encode("utf-8")  # can be printed and stored
    return str(caught.value).split("\n")


def mistake(path: Path | str, overrides: dict[str, object] | None = None) -> str:
    found = mistakes(path, overrides)
    assert len(found) == 1, found
    assert len(found[0]) < 600, "a huge value is cut"
    return found[0]


# --- what is read --------------------------------------------------------------------------------


def test_the_bundled_suite() -> None:
    suite = load_suite("overnight")
    sets = suite.prompt_sets()
    captures = sum(len(prompts) * suite.config(name).samples for name, prompts in sets.items())
    texts = {prompt.messages for prompts in sets.values() for prompt in prompts}
    assert (captures, len(texts)) == (24, 20)
    assert [suite.prompts[name].kind for name in sets] == ["trajectory"] * 4 + ["internals"] * 2
    assert suite.prompts["internals_cognitive"].blocks == ("middle",)
    assert suite.config() == GenerationConfig(50, 0.7, 1.0, 0, 0, 1)
    assert suite.root == BUNDLED_SUITES / "overnight"
    assert [source.path for source in suite.trait_sources] == [
        BUNDLED_TRAITS / name for name in suite.trait_names
    ]
    for expectation in suite.expect:
        assert len(suite.prompts_named(expectation.higher)) == 1
        assert expectation.margin == 0.5


def test_what_is_left_out_has_the_defaults_of_the_nouns(tmp_path: Path) -> None:
    suite = load_suite(small(tmp_path, rest=EXPECT))
    assert suite.config() == GenerationConfig()
    assert set(GenerationTable.model_fields) == set(GenerationConfig.__dataclass_fields__)
    assert (suite.device, suite.dtype, suite.rows, suite.revision) == ("auto", "auto", "auto", None)
    assert (suite.expect[0].window, suite.expect[0].site) == ("response[:]", "read")


def test_a_suite_without_a_name_is_called_after_its_file(tmp_path: Path) -> None:
    assert load_suite(small(tmp_path)).name == "small"
    folder = tmp_path / "My suite!"
    folder.mkdir()
    small(tmp_path).rename(folder / "suite.toml")
    assert load_suite(folder).name == "My-suite"


def test_a_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    path = small(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_suite(path).model == "pocket"


def test_prompts_are_found_beside_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "p.jsonl").write_text('{"prompt": "How?", "tags": {"topic": "law"}}')
    small(folder, prompts='[prompts.two]\nfile = "p.jsonl"\ntags = {topic = "art", hard = "no"}')
    monkeypatch.chdir(tmp_path)
    suite = load_suite(Path("suite", "small.toml"))
    (how,) = suite.prompt_sets()["two"]
    assert how.tags == {"topic": "law", "hard": "no"}, "a prompt's own tag wins"
    assert how.where == str(Path("suite", "p.jsonl")) + ":1"
    assert suite.prompt_sets()["one"][1].where.endswith("prompts.one.texts, entry 2")


def test_blocks_of_internals(tmp_path: Path) -> None:
    prompts = """
    [prompts.two]
    texts = ["Why?"]
    kind = "internals"
    [prompts.three]
    texts = ["Why?"]
    kind = "internals"
    blocks = [0, "middle", 3]
    """
    suite = load_suite(small(tmp_path, prompts=prompts))
    assert suite.prompts["two"].blocks == ("middle",)
    assert suite.prompts["three"].blocks == (0, "middle", 3)


def test_sites_and_windows_of_expectations(tmp_path: Path) -> None:
    more = 'window = "response[2 : 10]"\nsite = 0.25\nmargin = 1\n' + EXPECT + 'site = "3.post"'
    first, second = load_suite(small(tmp_path, rest=EXPECT + more)).expect
    assert (first.window, first.site, first.margin) == ("response[2:10]", 0.25, 1.0)
    assert second.site == "3.post"


def test_an_expectation_may_name_a_prompt_by_its_id(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "How?", "id": "Why?"}\n{"prompt": "How?"}')
    suite = load_suite(small(tmp_path, prompts='[prompts.two]\nfile = "p.jsonl"', rest=EXPECT))
    (named,) = suite.prompts_named("Why?")
    assert named.text == "How?", "an id comes before a text"


def test_traits_by_name_folder_and_directions_file(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "trait.toml").write_text("")
    (tmp_path / "old_run").mkdir()
    (tmp_path / "old_run" / "candour.safetensors").write_bytes(b"")
    traits = ["sycophancy", "./mine", "old_run/candour.safetensors", str(tmp_path / "mine/../x_1")]
    (tmp_path / "x_1").mkdir()
    (tmp_path / "x_1" / "trait.toml").write_text("")
    text = small(tmp_path).read_text().replace('["sycophancy"]', json.dumps(traits))
    (tmp_path / "small.toml").write_text(text)
    sources = load_suite(tmp_path / "small.toml").trait_sources
    assert [source.name for source in sources] == ["sycophancy", "mine", "candour", "x_1"]
    assert sources[1].path == tmp_path / "mine"


def test_the_resolved_suite_is_plain_json(tmp_path: Path) -> None:
    suite = load_suite(small(tmp_path, rest=EXPECT), {"temperature": 0})
    plain = suite.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["generation"]["temperature"] == 0
    again = suite_from_dict(plain, root=suite.root)
    assert again.to_dict() == plain


def test_a_suite_is_frozen(tmp_path: Path) -> None:
    suite = load_suite(small(tmp_path))
    with pytest.raises(ValidationError, match="frozen"):
        suite.model = "other"
    suite.prompt_sets()["one"].clear()
    assert len(suite.prompt_sets()["one"]) == 2


# --- models and overrides ------------------------------------------------------------------------


def test_a_models_folder_is_beside_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "suite" / "models" / "mine").mkdir(parents=True)
    path = small(tmp_path / "suite")
    text = path.read_text()
    monkeypatch.chdir(tmp_path)
    for written, meant in (
        ("pocket", "pocket"),
        ("google/gemma-2-2b-it", "google/gemma-2-2b-it"),
        ("models/mine", str(tmp_path / "suite" / "models" / "mine")),
        ("../suite/models/mine", str(tmp_path / "suite" / "models" / "mine")),
        ("~/nothing", os.path.expanduser("~/nothing")),
    ):
        path.write_text(text.replace('"pocket"', f'"{written}"'))
        assert load_suite("suite/small.toml").model == meant
    here = load_suite("suite/small.toml", {"model": "./suite"})
    assert here.model == str(tmp_path / "suite"), "what is typed is meant from where one stands"


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    prompts = '[prompts.two]\ntexts = ["Why?"]\nsamples = 5'
    top = 'device = "mps"\nrevision = "abc"\ntemplate = {effort = "high", day = 3}'
    path = small(tmp_path, top=top, generation="seed = 3", prompts=prompts)
    plain = load_suite(path, dict.fromkeys(OVERRIDES))
    assert (plain.device, plain.revision, plain.config().seed) == ("mps", "abc", 3)
    assert plain.config("two").samples == 5
    given = {
        "model": "other/model",
        "max_new_tokens": 7,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 4,
        "seed": 9,
        "samples": 2,
        "prompt_logprobs": False,
        "device": "cuda:1",
        "dtype": "bfloat16",
        "rows": 24,
        "allow_unproven": True,
        "revision": None,
        "adapter": "my/adapter",
        "trust_remote_code": True,
        "keep": ["3.post"],
        "thinking": False,
        "template": {"effort": "low"},
    }
    assert set(given) == set(OVERRIDES)
    suite = load_suite(path, given)
    assert suite.config("two") == GenerationConfig(7, 0, 0.5, 4, 9, 2, False)
    assert (suite.model, suite.device, suite.dtype) == ("other/model", "cuda:1", "bfloat16")
    assert (suite.rows, suite.allow_unproven) == (24, True)
    assert not plain.allow_unproven
    assert suite.keep.sites == ("3.post",)
    assert (plain.thinking, suite.thinking) == (None, False)
    assert suite.template == {"effort": "low", "day": 3}, "one variable, not the table"
    assert suite.revision is None, "it was the other model's"
    assert (suite.adapter, suite.trust_remote_code) == (str(Path.cwd() / "my/adapter"), True)


def test_what_goes_with_a_model_goes_with_it(tmp_path: Path) -> None:
    told = 'revision = "abc"\nadapter = "lora"\ntrust_remote_code = true\n'
    path = small(tmp_path, top=told + 'family = {blocks = "h", parallel = ["flag"], gate = ""}')
    suite = load_suite(path)
    assert (suite.revision, suite.trust_remote_code) == ("abc", True)
    assert suite.adapter == str(path.parent / "lora"), "paths begin at the suite's folder"
    assert suite.family == {"blocks": "h", "parallel": ("flag",), "gate": ""}
    other = load_suite(path, {"model": "other/model"})
    assert (other.revision, other.adapter) == (None, None)
    assert (other.family, other.trust_remote_code) == ({}, False)


def test_an_override_mends_what_the_file_has_wrong(tmp_path: Path) -> None:
    path = small(tmp_path, generation='temperature = "hot"')
    assert load_suite(path, {"temperature": 1.0}).config().temperature == 1


def test_a_wrong_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = small(tmp_path)
    assert mistake(path, {"temperature": -1.0}) == (
        "Given beside the suite: 'temperature': expected a number >= 0, got -1.0."
    )
    assert mistake(path, {"dtype": "fp16"}) == (
        "Given beside the suite: 'dtype': expected 'auto', 'float32', 'bfloat16' or 'float16', "
        "got 'fp16'."
    )
    assert "'rows': expected a whole number >= 1 or 'auto', got 0" in mistake(path, {"rows": 0})
    message = mistake(path, {"temprature": 1})
    assert "'temprature' cannot be given beside a suite" in message
    assert message.endswith("Did you mean 'temperature'?")


def test_an_override_beside_a_broken_table(tmp_path: Path) -> None:
    text = small(tmp_path).read_text().replace("[generation]", "generation = 3")
    (tmp_path / "small.toml").write_text(text)
    message = mistake(tmp_path / "small.toml", {"seed": 1})
    assert message.endswith("'generation': expected a table, got 3.")


# --- mistakes ------------------------------------------------------------------------------------


def test_an_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    path = small(tmp_path, generation="temprature = 1")
    assert mistake(path) == (
        f"{path}: key 'generation.temprature' is not known. Known here: max_new_tokens, "
        "temperature, top_p, top_k, seed, samples, prompt_logprobs. Did you mean 'temperature'?"
    )


def test_a_wrong_value_names_what_was_expected(tmp_path: Path) -> None:
    path = small(tmp_path, generation='temperature = "hot"')
    assert mistake(path) == (
        f"{path}: 'generation.temperature': expected a number >= 0, got 'hot'."
    )


@pytest.mark.parametrize(
    ("part", "line", "words"),
    [
        ("generation", "max_new_tokens = 0", "expected a whole number >= 1, got 0"),
        ("generation", "max_new_tokens = 50.0", "expected a whole number >= 1, got 50.0"),
        ("generation", 'max_new_tokens = "50"', "expected a whole number >= 1, got '50'"),
        ("generation", "samples = true", "expected a whole number >= 1, got True"),
        ("generation", "temperature = nan", "expected a number >= 0, got nan"),
        ("generation", "temperature = inf", "expected a number >= 0, got inf"),
        ("generation", "temperature = 2026-11-22", "expected a number >= 0, got datetime.date"),
        ("generation", "top_p = 0", "expected a number > 0 and <= 1, got 0"),
        ("generation", "top_p = 1.1", "expected a number > 0 and <= 1, got 1.1"),
        ("generation", "top_k = -1", "expected a whole number >= 0 (0: all), got -1"),
        ("generation", f"seed = {2**63}", "expected a whole number >= 0"),
        ("generation", f"seed = 0x{'f' * 9000}", "got a number of thousands of digits"),
        (
            "top",
            'device = "gpu"',
            "expected 'auto', 'cpu', 'cuda', 'cuda:N', 'mps' or 'spread' (all GPUs), got 'gpu'",
        ),
        ("top", 'device = "cpu\\n"', "got 'cpu\\n'"),
        ("top", 'dtype = "fp16"', "expected 'auto', 'float32', 'bfloat16' or 'float16'"),
        ("top", "rows = 0", "expected a whole number >= 1 or 'auto', got 0"),
        ("top", 'rows = "many"', "expected a whole number >= 1 or 'auto', got 'many'"),
        ("top", 'name = "a/b"', "expected a name of letters, digits, '_', '.' and '-', got 'a/b'"),
        ("top", 'name = ".."', "got '..'"),
        ("top", "description = 3", "'description': expected a text, got 3"),
        ("top", 'revision = ""', "'revision': expected a revision of the model, as text, got ''"),
        ("prompts", "kind = 3", "'prompts.one.kind': expected 'trajectory' or 'internals', got 3"),
        ("prompts", 'kind = "internal"', "expected 'trajectory' or 'internals', got 'internal'"),
        ("prompts", 'kind = "internals"\nblocks = ["midle"]', "'prompts.one.blocks', entry 1"),
        ("prompts", 'kind = "internals"\nblocks = [-1]', "got -1"),
        ("prompts", 'kind = "internals"\nblocks = []', "expected at least one block"),
        ("prompts", "blocks = [1]", "expected 'blocks' only with kind = \"internals\""),
        ("prompts", 'file = "p.txt"', "'conversations', got file and texts"),
        ("prompts", "[prompts.two]", "'prompts.two': expected one of 'file', 'texts'"),
        ("prompts", "[prompts.two]\ntexts = []", "expected at least one text in 'texts'"),
        ("prompts", "[prompts.two]\ntexts = [3]", "'prompts.two.texts', entry 1: expected a list"),
        (
            "prompts",
            '[prompts.two]\ntexts = [" "]',
            "prompts.two.texts, entry 1: expected a prompt",
        ),
        ("prompts", "[prompts.two]\nfile = []", "'prompts.two.file': expected the path"),
        ("prompts", '[prompts.two]\nfile = "p.txt"', "expected a file of prompts, got no such"),
        ("prompts", '[prompts.two]\nfile = "."', "got a folder"),
        ("prompts", '[prompts.two]\nfile = "\\u0000"', "got no such file"),
        ("prompts", f'[prompts.two]\nfile = "{"x" * 5000}.txt"', "expected a file of prompts"),
        ("prompts", '[prompts."a/b"]\ntexts = ["a"]', "got 'a/b'"),
        ("prompts", "tags = {a = 1}", "'prompts.one.tags': expected a flat table of texts"),
        ("prompts", "tags = {a = {b = {c = {d = 1}}}}", "expected a flat table of texts"),
        ("prompts", f"tags = {{{'a.' * 20_000}b = 1}}", "expected a flat table of texts"),
        ("rest", "[prompts.one]", "expected TOML, got a mistake: Cannot declare"),
        ("rest", "[[expect]]\nfoo.bar = 1", "key 'expect.foo' of [[expect]] number 1 is not known"),
        ("rest", "[expect]", "'expect': expected tables [[expect]], got {}"),
        ("rest", EXPECT + 'window = "answer[:]"', "expected a window such as 'prompt[-1]'"),
        ("rest", EXPECT + "window = 3", "expected a window such as 'prompt[-1]' or"),
        ("rest", EXPECT + 'site = "3.pre"', "expected 'read', a site such as '3.post', or a depth"),
        ("rest", EXPECT + "site = 1.5", "or a depth from 0.0 to 1.0, got 1.5"),
        ("rest", EXPECT + "site = true", "or a depth from 0.0 to 1.0, got True"),
        ("rest", EXPECT + "margin = -1", "expected a number >= 0, got -1"),
    ],
)
def test_each_mistake_has_its_words(tmp_path: Path, part: str, line: str, words: str) -> None:
    path = small(tmp_path, **{part: line})
    found = [message for message in mistakes(path) if words in message]
    assert len(found) == 1, mistakes(path)
    assert found[0].startswith(f"{path}: ")
    assert len(found[0]) < 6000 if "xxxxx" in line else len(found[0]) < 600


def test_all_mistakes_come_together(tmp_path: Path) -> None:
    path = small(tmp_path, top='modle = "x"\ndevice = "gpu"', generation="seed = -1\nsede = 1")
    found = mistakes(path)
    assert len(found) == 4
    for words in ("'device'", "'generation.seed'", "key 'generation.sede'", "Did you mean 'model'"):
        assert any(words in line for line in found), (words, found)


def test_all_that_is_missing_comes_together(tmp_path: Path) -> None:
    more = EXPECT.replace("Why?", "Wy?").replace("sycophancy", "sycophany")
    path = small(tmp_path, prompts='[prompts.two]\ntexts = [""]', rest=EXPECT + more)
    path.write_text(path.read_text().replace('["sycophancy"]', '["sycophancy", "humour"]'))
    found = mistakes(path)
    assert len(found) == 3, found
    assert "unknown trait 'humour'" in found[0]
    assert "'prompts.two'" in found[1]
    assert "'expect.trait' of [[expect]] number 2" in found[2]
    # 'Wy?' may be among the prompts that could not be loaded: said once that is mended
    path.write_text(path.read_text().replace('texts = [""]', 'texts = ["How?"]'))
    assert mistakes(path)[-1].endswith(
        "'expect.lower' of [[expect]] number 2: expected the text or the id of one of the suite's "
        "prompts, got 'Wy?'. Did you mean 'Why?'?"
    )


def test_without_model_traits_or_prompts(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    found = mistakes(path)
    assert [line.split(": ")[1] for line in found] == ["'model'", "'traits'", "'prompts'"]
    assert all(line.endswith("got nothing.") for line in found)
    path.write_text('model = "pocket"\ntraits = []\n[prompts]')
    assert [line.rsplit(", ", 1)[1] for line in mistakes(path)] == ["got [].", "got {}."]


def test_an_unknown_trait_lists_the_known(tmp_path: Path) -> None:
    path = small(tmp_path)
    path.write_text(path.read_text().replace('["sycophancy"]', '["sycophany"]'))
    assert mistake(path) == (
        f"{path}: 'traits': unknown trait 'sycophany'. Known here: cognitive_load, "
        "commitment_strength, sycophancy, uncertainty_calibration. Did you mean 'sycophancy'? A "
        "trait of your own is a folder with trait.toml and pairs.jsonl, named by its path "
        "('./NAME'): see 'traitscope init'."
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("./nowhere", "expected a folder with trait.toml and pairs.jsonl at './nowhere', got none"),
        ("../x.safetensors", "expected a directions file at '../x.safetensors', got none"),
        ("\\u0000/x", "got none"),
        ("./Some Trait", "expected a name of a-z, 0-9 and '_', at most 64 long"),
        ("x" * 4000 + "/y", "got none"),
        ("../" + BUNDLED_TRAITS.name + "/sycophancy", "got none"),
    ],
)
def test_a_trait_that_is_not_there(tmp_path: Path, entry: str, words: str) -> None:
    (tmp_path / "Some Trait").mkdir()
    (tmp_path / "Some Trait" / "trait.toml").write_text("")
    path = small(tmp_path)
    path.write_text(path.read_text().replace('["sycophancy"]', f'["{entry}"]'))
    assert words in mistake(path)


def test_a_trait_twice(tmp_path: Path) -> None:
    (tmp_path / "sycophancy").mkdir()
    (tmp_path / "sycophancy" / "trait.toml").write_text("")
    path = small(tmp_path)
    path.write_text(path.read_text().replace('["sycophancy"]', '["sycophancy", "./sycophancy"]'))
    assert "expected each trait once, got 'sycophancy' twice" in mistake(path)


def test_an_id_for_two_prompts_in_two_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "How?", "id": "x"}')
    (tmp_path / "b.jsonl").write_text('\n{"prompt": "When?", "id": "x"}')
    path = small(tmp_path, prompts='[prompts.a]\nfile="a.jsonl"\n[prompts.b]\nfile="b.jsonl"')
    assert mistake(path) == (
        f"{path}: 'prompts.b': expected an id of its own, got 'x' at {tmp_path / 'b.jsonl'}:2, "
        f"which another prompt at {tmp_path / 'a.jsonl'}:1 has already."
    )
    same = '[prompts.a]\nfile="a.jsonl"\n[prompts.b]\nfile="a.jsonl"\nkind="internals"'
    assert len(load_suite(small(tmp_path, prompts=same)).prompts_named("x")) == 1


def test_an_expectation_about_one_of_two_chats(tmp_path: Path) -> None:
    chat = '{{"messages": [{{"role": "system", "content": "{}"}}, {}]}}'
    last = '{"role": "user", "content": "Why?"}'
    (tmp_path / "p.jsonl").write_text("\n".join(chat.format(s, last) for s in ("Long.", "Brief.")))
    path = small(tmp_path, prompts='[prompts.two]\nfile = "p.jsonl"', rest=EXPECT)
    assert "expected one prompt, got 3 chats that end in 'Why?'. Give them an id" in mistake(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model = \ntraits", "(at line 1, column 9)"),
        (b'a = "b', "Unterminated string"),
        (b"a = " + b"[" * 100_000, "nested without end"),
        (b"a = " + b"9" * 5000, "expected TOML"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "got a NUL byte at byte 7"),
        (b"# \xff", "expected UTF-8 text, got byte 0xff at byte 2"),
        ("name = 'x'".encode("utf-16"), "NUL byte"),
        (b"a" * 1_000_000, "expected TOML"),
    ],
)
def test_no_toml(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    message = mistake(path)
    assert message.startswith(str(path))
    assert words in message


def test_no_suite(tmp_path: Path) -> None:
    assert "(known: overnight), got neither. Did you mean 'overnight'?" in mistake("overnigth")
    assert "got a folder without a suite.toml" in mistake(tmp_path)
    assert "got neither" in mistake(tmp_path / "x.toml")
    assert "got neither" in mistakes("x" * 5000 + "/\0")[0]


# --- paths ---------------------------------------------------------------------------------------


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home"
    assert not cache_dir().exists()
    monkeypatch.delenv("TRAITSCOPE_HOME")
    assert cache_dir().name == "traitscope"
