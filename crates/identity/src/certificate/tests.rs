use super::*;
use crate::testing::{Authority, HOUR, Leaf, MINUTE, cart, web};

/// Issues to `cart` through an intermediate and hands over the answer a CA would give.
struct Answer {
    key: PrivateKeyDer<'static>,
    leaf: String,
    intermediate: String,
    root: String,
    now: SystemTime,
}

impl Answer {
    fn new() -> Self {
        let now = SystemTime::now();
        let root = Authority::root("root");
        let intermediate = root.intermediate("intermediate");
        let (leaf, key) = intermediate.sign(&Leaf::of(&cart(), now));
        Self { key, leaf: leaf.pem(), intermediate: intermediate.pem(), root: root.pem(), now }
    }

    fn parts(&self) -> [&str; 3] {
        [&self.leaf, &self.intermediate, &self.root]
    }

    fn check(&self, asked: &SpiffeId, parts: &[&str]) -> Result<WorkloadCertificate, CertificateRefused> {
        WorkloadCertificate::from_issued(asked, self.key.clone_key(), parts, self.now)
    }
}

#[test]
fn a_whole_answer_is_taken() {
    let answer = Answer::new();
    let certificate = answer.check(&cart(), &answer.parts()).unwrap();
    assert_eq!(certificate.id(), &cart());
    assert_eq!(certificate.chain().len(), 2);
    assert_eq!(certificate.roots().len(), 1);
    assert!(certificate.not_before() < answer.now && answer.now < certificate.not_after());
}

#[test]
fn several_roots_in_the_last_text_are_all_trusted() {
    let answer = Answer::new();
    let roots = format!("{}{}", Authority::root("next").pem(), answer.root);
    let certificate = answer.check(&cart(), &[&answer.leaf, &answer.intermediate, &roots]).unwrap();
    assert_eq!(certificate.roots().len(), 2);
}

#[test]
fn an_answer_for_somebody_else_is_refused() {
    let answer = Answer::new();
    let refused = answer.check(&web(), &answer.parts()).unwrap_err();
    assert!(
        matches!(refused, CertificateRefused::OtherIdentity { asked, issued } if asked == web() && issued == cart())
    );
}

#[test]
fn a_certificate_for_another_key_is_refused() {
    let (answer, other) = (Answer::new(), Answer::new());
    let refused = WorkloadCertificate::from_issued(&cart(), other.key, &answer.parts(), answer.now);
    assert!(matches!(refused.unwrap_err(), CertificateRefused::Key { .. }));
}

#[test]
fn a_chain_that_does_not_lead_to_the_roots_is_refused() {
    let answer = Answer::new();
    let foreign = Authority::root("root").pem();
    for parts in [&[&*answer.leaf, &answer.intermediate, &foreign][..], &[&answer.leaf, &answer.root]] {
        let refused = answer.check(&cart(), parts).unwrap_err();
        assert!(matches!(refused, CertificateRefused::Chain { .. }), "{refused}");
    }
}

#[test]
fn an_answer_with_a_part_missing_is_refused() {
    let answer = Answer::new();
    let missing = |parts: &[&str]| {
        let refused = answer.check(&cart(), parts).unwrap_err();
        if let CertificateRefused::Missing { part } = refused { Some(part) } else { None }
    };
    assert_eq!(missing(&[]), Some(Part::Roots));
    assert_eq!(missing(&[&answer.root]), Some(Part::Chain));
    assert_eq!(missing(&["", &answer.root]), Some(Part::Chain));
    assert_eq!(missing(&[&answer.leaf, "no PEM in here"]), Some(Part::Roots));
}

#[test]
fn damaged_pem_is_refused() {
    let answer = Answer::new();
    let damaged = answer.root.replace("-----END", "");
    let refused = answer.check(&cart(), &[&answer.leaf, &answer.intermediate, &damaged]).unwrap_err();
    assert!(matches!(refused, CertificateRefused::NotPem { part: Part::Roots, .. }));
}

#[test]
fn validity_is_judged_by_the_given_clock() {
    let answer = Answer::new();
    let at = |now| {
        WorkloadCertificate::from_issued(&cart(), answer.key.clone_key(), &answer.parts(), now).map(drop)
    };
    assert!(at(answer.now).is_ok());
    for now in [answer.now - 2 * MINUTE, answer.now + HOUR] {
        assert!(matches!(at(now), Err(CertificateRefused::NotValidNow { .. })));
    }
}

#[test]
fn neither_debug_nor_errors_show_the_key() {
    let answer = Answer::new();
    let certificate = answer.check(&cart(), &answer.parts()).unwrap();
    let shown = format!("{certificate:?}");
    assert!(shown.contains("cart") && !shown.to_lowercase().contains("key"), "{shown}");
}
