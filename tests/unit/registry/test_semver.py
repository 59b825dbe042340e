import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RegistryError
from pipeline.registry import semver

# The lists that semver.org's own expression is tested with (https://regex101.com/r/vkijKf/1/).
VALID = [
    "0.0.4",
    "1.2.3",
    "10.20.30",
    "1.1.2-prerelease+meta",
    "1.1.2+meta",
    "1.1.2+meta-valid",
    "1.0.0-alpha",
    "1.0.0-beta",
    "1.0.0-alpha.beta",
    "1.0.0-alpha.beta.1",
    "1.0.0-alpha.1",
    "1.0.0-alpha0.valid",
    "1.0.0-alpha.0valid",
    "1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay",
    "1.0.0-rc.1+build.1",
    "2.0.0-rc.1+build.123",
    "1.2.3-beta",
    "10.2.3-DEV-SNAPSHOT",
    "1.2.3-SNAPSHOT-123",
    "1.0.0",
    "2.0.0",
    "1.1.7",
    "2.0.0+build.1848",
    "2.0.1-alpha.1227",
    "1.0.0-alpha+beta",
    "1.2.3----RC-SNAPSHOT.12.9.1--.12+788",
    "1.2.3----R-S.12.9.1--.12+meta",
    "1.2.3----RC-SNAPSHOT.12.9.1--.12",
    "1.0.0+0.build.1-rc.10000aaa-kk-0.1",
    "1.0.0-0A.is.legal",
    "99999999999999999999999.999999999999999999.99999999999999999",
]
INVALID = [
    "1",
    "1.2",
    "1.2.3-0123",
    "1.2.3-0123.0123",
    "1.1.2+.123",
    "+invalid",
    "-invalid",
    "-invalid+invalid",
    "-invalid.01",
    "alpha",
    "alpha.beta",
    "alpha.beta.1",
    "alpha.1",
    "alpha+beta",
    "alpha_beta",
    "alpha.",
    "alpha..",
    "beta",
    "1.0.0-alpha_beta",
    "-alpha.",
    "1.0.0-alpha..",
    "1.0.0-alpha..1",
    "1.0.0-alpha...1",
    "1.0.0-alpha....1",
    "01.1.1",
    "1.01.1",
    "1.1.01",
    "1.2.3.DEV",
    "1.2-SNAPSHOT",
    "1.2.31.2.3----RC-SNAPSHOT.12.09.1--..12+788",
    "1.2-RC-SNAPSHOT",
    "-1.0.3-gamma+b7718",
    "+justmeta",
    "9.8.7+meta+meta",
    "9.8.7-whatever+meta+meta",
    "99999999999999999999999.999999999999999999.99999999999999999----RC-SNAPSHOT.12.09.1----------..12",
]
OURS = {
    "empty": "",
    "a newline after it": "1.0.0\n",
    "digits of another script": "1.0.\u0663",
    "a path": "../1.0.0",
    "a prefix": "v1.0.0",
    "longer than a file name may be": "1.0.0+" + "a" * 123,
}
# The chains that semver.org gives in 11.2, 11.3 and 11.4, and one over the kinds of identifiers.
CHAINS = {
    "11.2": "1.0.0 2.0.0 2.1.0 2.1.1",
    "11.3": "1.0.0-alpha 1.0.0",
    "11.4": "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 "
    "1.0.0-rc.1 1.0.0",
    "numbers, not text": "1.0.0-2 1.0.0-11 1.0.0-1a 1.0.0-A 1.0.0-a 1.9.0 1.10.0",
}


@pytest.mark.parametrize("version", VALID)
def test_what_semver_org_calls_valid(version):
    semver.check(version)
    assert semver.is_version(version)


@pytest.mark.parametrize("version", [*INVALID, *OURS.values()])
def test_what_semver_org_calls_invalid_and_what_cannot_be_a_file_name(version):
    with pytest.raises(RegistryError, match=r"must be a semantic version such as 1\.2\.0"):
        semver.check(version)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_order_of_the_reference(chain):
    for lower, higher in itertools.combinations(chain.split(), 2):
        assert semver.precedence(lower) < semver.precedence(higher), (lower, higher)


versions = st.from_regex(semver._VERSION, fullmatch=True).filter(semver.is_version)


@settings(max_examples=40)
@given(versions, st.from_regex(r"\A[0-9A-Za-z-]{1,8}\Z"))
def test_build_metadata_has_no_part_in_the_order(version, build):
    plain = version.partition("+")[0]
    assert semver.precedence(f"{plain}+{build}") == semver.precedence(version)


@settings(max_examples=40)
@given(versions, versions)
def test_versions_of_equal_precedence_differ_in_build_metadata_only(one, other):
    same = one.partition("+")[0] == other.partition("+")[0]
    assert (semver.precedence(one) == semver.precedence(other)) == same
    assert (semver.precedence(one) < semver.precedence(other)) + same + (
        semver.precedence(other) < semver.precedence(one)
    ) == 1


def test_a_tag_names_model_and_version():
    assert semver.of_tag("digits@v1.2.0-rc.1", "digits") == "1.2.0-rc.1"


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("v1.2.0", r"tag must be NAME@vX\.Y\.Z, got 'v1\.2\.0'"),
        ("other@v1.2.0", r"is of 'other', params\.yaml builds 'digits'; retag it"),
        ("digits@v1.2", r"'1\.2'"),
    ],
)
def test_a_tag_that_is_none_or_anothers_is_refused(tag, words):
    with pytest.raises(RegistryError, match=words):
        semver.of_tag(tag, "digits")
