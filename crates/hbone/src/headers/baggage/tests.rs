use proptest::prelude::*;

use super::*;

fn parse(value: &str) -> Baggage<'_> {
    Baggage::parse([value.as_bytes()])
}

fn full() -> Baggage<'static> {
    Baggage {
        cluster: "Kubernetes".into(),
        namespace: "shop".into(),
        owner: Some((WorkloadType::Deployment, "cart".into())),
        pod: "cart-6f-1".into(),
        service_name: "cart".into(),
        service_version: "v1".into(),
        region: "r1".into(),
        zone: "z1".into(),
    }
}

#[test]
fn members_are_written_in_the_order_of_istio_without_the_empty_ones() {
    let cases = [
        (
            full(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart,\
             service.name=cart,service.version=v1,cloud.region=r1,cloud.availability_zone=z1,\
             ambit.pod=cart-6f-1",
        ),
        (
            Baggage { owner: Some((WorkloadType::CronJob, "nightly".into())), ..Baggage::default() },
            "k8s.cronjob.name=nightly",
        ),
        (
            Baggage { owner: Some((WorkloadType::Pod, "".into())), zone: "z1".into(), ..Baggage::default() },
            "cloud.availability_zone=z1",
        ),
        (
            Baggage { service_name: "a,b;c=d\"e\\f g%".into(), ..Baggage::default() },
            "service.name=a%2Cb%3Bc=d%22e%5Cf%20g%25",
        ),
        (Baggage::default(), ""),
    ];
    for (baggage, value) in cases {
        assert_eq!(baggage.to_string(), value);
    }
}

#[test]
fn what_is_not_understood_is_left_out() {
    let service = |name| Baggage { service_name: Cow::Borrowed(name), ..Baggage::default() };
    for (value, expected) in [
        ("service.name=cart", service("cart")),
        (" service.name = cart ;ttl=30;secret , other=1", service("cart")),
        ("service.name=a,service.name=b", service("b")),
        ("service.name=a%2Cb", service("a,b")),
        ("service.name=50%", service("50%")),
        ("service.name=%zz%4", service("%zz%4")),
        ("service.name=%ff", service("%ff")),
        ("service.name=k=v", service("k=v")),
        ("service.name", service("")),
        ("SERVICE.NAME=cart", service("")),
        ("k8s.statefulset.name=db", Baggage::default()),
        ("k8s.pod.name=", Baggage::default()),
        (",,=,;", Baggage::default()),
    ] {
        assert_eq!(parse(value), expected, "{value:?}");
    }
}

#[test]
fn lines_are_read_together() {
    let lines = [&b"k8s.cluster.name=c1,k8s.namespace.name=shop"[..], b"\xff\xfe", b"k8s.job.name=import"];
    let baggage = Baggage::parse(lines);
    assert_eq!((&*baggage.cluster, &*baggage.namespace), ("c1", "shop"));
    assert_eq!(baggage.owner, Some((WorkloadType::Job, "import".into())));
}

#[test]
fn what_lies_beyond_the_limits_is_not_read() {
    let members = format!("{}service.name=cart", "x=1,".repeat(MAX_MEMBERS));
    assert_eq!(parse(&members), Baggage::default());

    let long = format!("service.name={}", "a".repeat(MAX_OCTETS));
    assert_eq!(parse(&long), Baggage::default());

    let half = format!("x={}", "a".repeat(MAX_OCTETS / 2));
    let lines = [half.as_bytes(), half.as_bytes(), b"service.name=cart"];
    assert_eq!(Baggage::parse(lines), Baggage::default());
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        values in prop::array::uniform8("\\PC{1,20}"),
        kind in prop::sample::select(OWNER_KINDS.to_vec()),
    ) {
        let [cluster, namespace, owner, pod, service_name, service_version, region, zone] =
            values.map(Cow::<str>::Owned);
        let baggage = Baggage {
            cluster, namespace, owner: Some((kind, owner)), pod, service_name, service_version, region, zone,
        };
        let value = baggage.to_string();
        prop_assert!(value.bytes().all(|octet| (b'!'..=b'~').contains(&octet)));
        prop_assert_eq!(parse(&value), baggage);
    }

    #[test]
    fn no_value_panics(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
        let baggage = Baggage::parse(lines.iter().map(Vec::as_slice));
        let value = baggage.to_string();
        prop_assert_eq!(parse(&value), baggage);
    }
}
