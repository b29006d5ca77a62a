//! What control itself says of the objects: problems with files, verdicts, notes and conditions.

use control::objects::{Kind, KnownKind};
use control::source::SourceReason;
use control::status::{Verdict, place, verdict};
use control::translate::{Condition, Reason};

use super::{Finding, Findings, Severity};

/// Groups whose kinds are meant for a mesh: one that is not read is worth a word.
const GROUPS_OF_MESHES: [&str; 4] =
    [".istio.io", "gateway.networking.k8s.io", "gateway.networking.x-k8s.io", "ambit.dev"];

/// Conditions that are about what runs and not about what is written.
const OF_RUNNING_PARTS: [&str; 1] = ["Programmed"];

pub(super) fn look(findings: &mut Findings<'_>) {
    let generation = findings.model.generation();
    for problem in generation.inputs.problems() {
        let (check, advice) = match problem.reason {
            SourceReason::FileUnreadable => ("file", "make the file readable, and UTF-8"),
            SourceReason::DocumentUnreadable => {
                ("document", "write one object that has apiVersion, kind and metadata.name")
            }
            SourceReason::Duplicate => ("duplicate", "keep one of both"),
        };
        findings.found.push(Finding {
            place: problem.origin.clone(),
            severity: Severity::Error,
            object: None,
            check,
            what: problem.message.clone(),
            advice: advice.to_owned(),
        });
    }
    for (key, entry) in generation.inputs.entries() {
        let (said, message) = verdict(key, entry);
        match said {
            Verdict::Accepted => {}
            Verdict::Ignored => {
                if let Kind::Foreign { group, .. } = &key.kind
                    && GROUPS_OF_MESHES.iter().any(|of_mesh| group.ends_with(of_mesh))
                {
                    let advice = "take it away, or do without what it says";
                    findings.of(key, (Severity::Warning, "not-read"), message, advice);
                }
            }
            Verdict::LastGoodKept | Verdict::Closed | Verdict::Invalid => findings.found.push(Finding {
                place: place(entry).clone(),
                severity: Severity::Error,
                object: Some(key.to_string()),
                check: "invalid",
                what: message,
                advice: "write it as its API asks".to_owned(),
            }),
        }
        let conditions = generation.translated.conditions.0.get(key).map_or(&[][..], Vec::as_slice);
        for condition in conditions.iter().filter(|condition| is_bad(condition)) {
            let at = condition.parent.as_ref().map(|parent| format!("{parent}: ")).unwrap_or_default();
            let what = format!("{at}{} ({} {})", condition.message, condition.kind, condition.reason);
            findings.of(key, (Severity::Error, "condition"), what, advice_of(condition.reason));
        }
        for note in generation.translated.notes.0.get(key).into_iter().flatten() {
            // A condition says the same of it.
            let is_said =
                |condition: &&Condition| is_bad(condition) && note.message.contains(&*condition.message);
            if conditions.iter().any(|condition| is_said(&condition)) {
                continue;
            }
            let (severity, check, advice) = match note.reason {
                Reason::NoEffect if is_security(&key.kind) => {
                    (Severity::Error, "no-effect", "put it where it is enforced, or take it away")
                }
                Reason::NoEffect => {
                    (Severity::Warning, "no-effect", "put it where it counts, or take it away")
                }
                Reason::EnforcedStricter => (
                    Severity::Warning,
                    "stricter",
                    "ask only for what can be checked there, or use targetRefs and a waypoint",
                ),
                Reason::Conflict => (Severity::Error, "conflict", "keep one of both"),
                Reason::NotTranslated => (Severity::Error, "not-carried-out", "write it as its API asks"),
            };
            findings.of(key, (severity, check), note.message.clone(), advice);
        }
    }
    for refused in findings.model.refused() {
        findings.found.push(Finding {
            place: control::source::Origin { file: refused.name.as_str().into(), line: 0 },
            severity: Severity::Error,
            object: Some(refused.name.clone()),
            check: "refused",
            what: format!("proxies refuse it and keep what they had: {}", refused.why),
            advice: "this is a fault of ours: tell us what is written".to_owned(),
        });
    }
}

/// Whether a condition says that something is not as it should be.
fn is_bad(condition: &Condition) -> bool {
    let good = condition.kind != "PartiallyInvalid";
    condition.status != good && !OF_RUNNING_PARTS.contains(&condition.kind)
}

fn is_security(kind: &Kind) -> bool {
    matches!(kind, Kind::Known(KnownKind::AuthorizationPolicy | KnownKind::PeerAuthentication))
}

fn advice_of(reason: &str) -> &'static str {
    match reason {
        "NoMatchingParent" | "TargetNotFound" | "BackendNotFound" => {
            "make what is named, or name what there is"
        }
        "WaypointIsNotReady" => "make the Gateway, or take the label istio.io/use-waypoint away",
        "AttachmentDenied" | "NotAllowedByListeners" => {
            "allow the namespace in allowedRoutes of the listener"
        }
        "UnsupportedTrafficType" => "set the label istio.io/waypoint-for of the Gateway to what it is for",
        "AncestorNotBound" => {
            "bind it with the label istio.io/use-waypoint, or use a selector and what layer 4 can check"
        }
        "Conflicted" => "keep one of both",
        "InvalidKind" => "name a Service",
        _ => "write what can be carried out",
    }
}
