use std::path::Path;

use super::*;
use crate::explain::tests::model;

/// The blocks of YAML of docs/policy-tests.md: what the page shows is what runs.
fn example() -> (String, Table) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy-tests.md");
    let page = fs::read_to_string(path).unwrap();
    let mut blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let (mesh, table) = (blocks.next().unwrap(), blocks.next().unwrap());
    (mesh, Table::read(&table).unwrap())
}

fn outcomes(mesh: &str, table: &Table) -> Vec<Outcome> {
    test(&model(&[mesh], table.as_deployed), table)
}

#[test]
fn the_example_of_the_documentation_is_as_it_says() {
    let (mesh, table) = example();
    assert!(table.cases.len() >= 4);
    let outcomes = outcomes(&mesh, &table);
    let failed: Vec<String> =
        outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn each_expectation_can_fail_and_says_what_was_found() {
    let (mesh, table) = example();
    let case = |more: &str| {
        let text = format!("cases:\n- {{from: shop/client, to: web.shop/admin, {more}}}\n");
        let table = Table { as_deployed: true, ..Table::read(&text).unwrap() };
        outcomes(&mesh, &table).remove(0)
    };
    assert!(table.as_deployed);
    for (more, expected) in [
        ("expect: deny, status: 403, policy: shop/no-admin", &[][..]),
        ("expect: allow", &["expected to be allowed, and is refused"]),
        ("expect: deny, status: 404", &["expected status 404, found 403"]),
        ("expect: deny, policy: shop/other", &["expected policy shop/other, found shop/no-admin"]),
        ("expect: deny, route: HTTPRoute/shop/web", &["expected route HTTPRoute/shop/web, found none"]),
        ("expect: deny, backend: []", &[]),
        ("expect: deny, path: /", &["expected to be denied, and is served"]),
        (
            "expect: allow, path: /, backend: shop/web-v1:80",
            &["expected backend shop/web-v1:80, found shop/web-v1:80, shop/web-v2:80"],
        ),
        ("expect: allow, path: /, backend: [shop/web-v1:80, shop/web-v2:80]", &[]),
    ] {
        let outcome = case(more);
        assert_eq!(outcome.failures, expected, "{more}: {outcome}");
    }
    let text = case("expect: allow").to_string();
    assert!(text.starts_with("FAIL  case 1\n      expected to be allowed"), "{text}");
    assert!(text.contains("shop/no-admin (DENY): denies, rule 0 <- decides"), "{text}");
    let nobody = Table::read("cases:\n- {from: 'pod:shop/nobody', to: web.shop, expect: deny}\n").unwrap();
    assert_eq!(outcomes(&mesh, &nobody)[0].failures, ["there is no pod shop/nobody"]);
}

#[test]
fn what_is_no_table_is_refused_with_its_line() {
    for text in [
        "cases:\n- {from: shop/client, to: web.shop, expect: maybe}\n",
        "cases:\n- {from: client, to: web.shop, expect: allow}\n",
        "cases:\n- {from: shop/client, expect: allow}\n",
        "cases:\n- {from: shop/client, to: web.shop, expect: allow, oops: 1}\n",
        "cases:\n- {from: shop/client, to: web.shop, expect: allow, headers: {a b: c}}\n",
    ] {
        let why = Table::read(text).unwrap_err();
        assert!(why.starts_with("line 2:"), "{text}: {why}");
    }
    assert!(Table::read("dir: x\n").is_err());
}
