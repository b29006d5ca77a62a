//! An answer as people read it.

use std::fmt::{self, Write as _};

use super::answer::{Answer, Carried, End, EndpointHop, PolicySays, Says, Sends, Share, Way, WaypointHop};

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self))
    }
}

fn text(answer: &Answer) -> String {
    let mut page = Page::default();
    let request = &answer.request;
    page.line(0, format!("{} {}  (Host: {})", request.method, request.target, request.authority));
    let pod = request.pod.as_ref().map(|pod| format!(" ({pod})")).unwrap_or_default();
    page.line(1, format!("from {}{pod}", request.from));
    page.line(1, format!("to   {} at {}", request.to, request.address));
    match answer.ends.as_slice() {
        [only] => page.line(0, format!("=> {}", end(only))),
        several => {
            page.line(0, "=> one of, by chance:".to_owned());
            several.iter().for_each(|each| page.line(1, end(each)));
        }
    }
    page.line(0, String::new());
    match &answer.way {
        Way::Refused { reason } => page.line(0, format!("Refused by the client's node agent: {reason}")),
        Way::Outside { reason } => page.line(0, format!("Outside of the mesh: {reason}")),
        Way::Direct { reason, endpoints } => {
            page.line(0, format!("No waypoint: {reason}"));
            page.endpoints(1, endpoints);
        }
        Way::Waypoint(hop) => page.waypoint(0, hop),
    }
    if !answer.notes.is_empty() {
        page.line(0, String::new());
    }
    answer.notes.iter().for_each(|note| page.line(0, format!("Note: {note}")));
    page.0
}

pub(crate) fn end(end: &End) -> String {
    match end {
        End::Reaches { workload, backend } if backend.is_empty() => format!("reaches {workload}"),
        End::Reaches { workload, backend } => format!("reaches {workload} of {backend}"),
        End::Answered { status, grpc_status: Some(of_grpc), reason } => {
            format!("answered with grpc-status {of_grpc} (HTTP {status} to others): {reason}")
        }
        End::Answered { status, grpc_status: None, reason } => format!("answered with {status}: {reason}"),
        End::Reset { reason } => format!("the connection is reset, without an answer: {reason}"),
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, depth: usize, text: String) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{:width$}{text}", "", width = if text.is_empty() { 0 } else { depth * 2 });
    }

    fn waypoint(&mut self, depth: usize, hop: &WaypointHop) {
        let more = match hop.instances {
            1 => String::new(),
            count => format!(", one of {count} instances"),
        };
        self.line(depth, format!("Waypoint {} ({}{more})", hop.gateway, hop.instance));
        self.line(depth + 1, format!("client: {}", hop.client));
        self.line(depth + 1, format!("protocol: {}", hop.protocol));
        self.policies(depth + 1, &hop.policies, hop.allowed_by.as_deref());
        match &hop.route {
            Some(route) => {
                let name = route.rule_name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
                let at = route.r#match.map(|at| format!(", match {at}")).unwrap_or_default();
                self.line(depth + 1, format!("route: {}, rule {}{name}{at}", route.route, route.rule));
                self.line(depth + 2, format!("matched by: {}", route.conditions));
            }
            None => self.line(depth + 1, "route: none".to_owned()),
        }
        if let Some(ended) = &hop.end {
            self.line(depth + 1, format!("=> {}", end(ended)));
        }
        hop.backends.iter().for_each(|share| self.share(depth + 1, share));
    }

    fn share(&mut self, depth: usize, share: &Share) {
        let part = match (share.weight, share.of) {
            (0, _) => ", weight 0: never".to_owned(),
            (weight, of) if u64::from(weight) == of => String::new(),
            (weight, of) => {
                // Weights are at most a million and rules have few of them: no precision is lost.
                let percent = 100.0 * f64::from(weight) / of as f64;
                format!(", weight {weight} of {of}: {percent:.1} %")
            }
        };
        let subset = share.subset.as_ref().map(|subset| format!(", subset {subset}")).unwrap_or_default();
        self.line(depth, format!("backend: {}{subset}{part}", share.backend));
        if let Some(sends) = &share.sends {
            self.sends(depth + 1, sends);
        }
        if let Some(ended) = &share.end {
            self.line(depth + 1, format!("=> {}", end(ended)));
        }
        self.endpoints(depth + 1, &share.endpoints);
        if let Some(through) = &share.through {
            self.waypoint(depth + 1, through);
        }
    }

    fn sends(&mut self, depth: usize, sends: &Sends) {
        sends.rewritten.iter().for_each(|change| self.line(depth, format!("rewritten: {change}")));
        sends.request_headers.iter().for_each(|edit| self.line(depth, format!("request header: {edit}")));
        sends.response_headers.iter().for_each(|edit| self.line(depth, format!("answer's header: {edit}")));
        if let Some(limit) = sends.timeout_ms {
            self.line(depth, format!("timeout: {limit} ms"));
        }
        if let Some(limit) = sends.try_timeout_ms {
            self.line(depth, format!("timeout of a try: {limit} ms"));
        }
    }

    fn endpoints(&mut self, depth: usize, endpoints: &[EndpointHop]) {
        let total: u64 = endpoints.iter().map(|hop| u64::from(hop.weight)).sum();
        for hop in endpoints {
            let part = match endpoints.len() {
                1 => String::new(),
                _ => format!(", weight {} of {total}", hop.weight),
            };
            let carried = match hop.carried {
                Carried::Hbone => "HBONE",
                Carried::PlainCaptured => "plain text to its node's agent",
                Carried::Plain => "plain text, no policy is asked",
            };
            self.line(depth, format!("endpoint: {} at {} ({carried}){part}", hop.workload, hop.address));
            if !hop.policies.is_empty() {
                self.line(depth + 1, format!("client: {}", hop.client));
            }
            let is_asked = hop.carried != Carried::Plain;
            if is_asked {
                self.policies(depth + 1, &hop.policies, hop.allowed_by.as_deref());
            }
            if !matches!(hop.end, End::Reaches { .. }) {
                self.line(depth + 1, format!("=> {}", end(&hop.end)));
            }
        }
    }

    fn policies(&mut self, depth: usize, policies: &[PolicySays], allowed_by: Option<&str>) {
        for policy in policies {
            self.line(depth, format!("policy: {}", says(policy)));
        }
        match allowed_by {
            Some(by) => self.line(depth, format!("allowed: {by}")),
            None if policies.is_empty() => self.line(depth, "policy: none applies".to_owned()),
            None => {}
        }
    }
}

fn says(policy: &PolicySays) -> String {
    let says = match policy.says {
        Says::Nothing => "no rule matches",
        Says::Allows => "allows",
        Says::Denies => "denies",
        Says::WouldAllow => "would allow",
        Says::WouldDeny => "would deny",
        Says::Audits => "audits",
    };
    let rule = policy.rule.map(|rule| format!(", rule {rule}")).unwrap_or_default();
    let dry_run = if policy.dry_run { " on trial" } else { "" };
    let decides = if policy.decides { " <- decides" } else { "" };
    format!("{} ({}{dry_run}): {says}{rule}{decides}", policy.policy, policy.action)
}
