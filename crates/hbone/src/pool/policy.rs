//! Which tunnel a new stream goes to: a pure choice.

/// What the choice needs to know of one tunnel.
#[derive(Clone, Copy, Debug)]
pub struct TunnelView<T> {
    /// The tunnel.
    pub tunnel: T,
    /// Streams that the peer would still accept.
    pub available: usize,
    /// Streams that are open.
    pub open: usize,
    /// Dialled with the certificate that is in use now.
    pub current: bool,
}

/// Limits of sharing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams that share one tunnel, whatever the peer would accept. Istio's default: 100.
    pub streams_per_tunnel: usize,
    /// Dials for one key at one time.
    pub concurrent_dials: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams_per_tunnel: 100, concurrent_dials: 16 }
    }
}

/// What a flow does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<T> {
    /// Opens a stream on this tunnel.
    Use(T),
    /// Waits for a dial that will have room for it.
    Wait,
    /// Dials.
    Dial,
}

impl<T: Clone> Choice<&T> {
    pub(super) fn cloned(self) -> Choice<T> {
        match self {
            Self::Use(tunnel) => Choice::Use(tunnel.clone()),
            Self::Wait => Choice::Wait,
            Self::Dial => Choice::Dial,
        }
    }
}

/// Chooses for one more stream: the first tunnel with room, so that later ones can fall idle; else a
/// running dial, while those already waiting for it leave room; else a dial.
pub fn choose<T>(
    tunnels: impl IntoIterator<Item = TunnelView<T>>,
    dials: usize,
    waiting: usize,
    limits: &Limits,
) -> Choice<T> {
    let roomy =
        |view: &TunnelView<T>| view.current && view.available > 0 && view.open < limits.streams_per_tunnel;
    if let Some(view) = tunnels.into_iter().find(roomy) {
        return Choice::Use(view.tunnel);
    }
    // Each dial serves the flow that started it and as many who wait as fit beside it.
    let promised = dials * (limits.streams_per_tunnel - 1);
    if waiting < promised || (dials > 0 && dials >= limits.concurrent_dials) {
        return Choice::Wait;
    }
    Choice::Dial
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { streams_per_tunnel: 3, concurrent_dials: 2 };

    fn view(tunnel: char, available: usize, open: usize, current: bool) -> TunnelView<char> {
        TunnelView { tunnel, available, open, current }
    }

    #[test]
    fn a_stream_goes_to_the_first_tunnel_with_room_and_waits_only_for_promised_room() {
        let full = view('f', 0, 3, true);
        let limited = view('l', 50, 3, true);
        let old = view('o', 50, 0, false);
        let free = view('a', 50, 1, true);
        for (rule, tunnels, dials, waiting, expected) in [
            ("nothing there: dial", vec![], 0, 0, Choice::Dial),
            ("room: use", vec![free], 0, 0, Choice::Use('a')),
            ("the first with room", vec![full, free, view('b', 9, 0, true)], 0, 0, Choice::Use('a')),
            ("the peer's limit counts", vec![full], 0, 0, Choice::Dial),
            ("our limit counts", vec![limited], 0, 0, Choice::Dial),
            ("an older certificate takes no new streams", vec![old], 0, 0, Choice::Dial),
            ("a running dial has room for one beside its own", vec![full], 1, 0, Choice::Wait),
            ("and for two", vec![full], 1, 1, Choice::Wait),
            ("but not for three", vec![full], 1, 2, Choice::Dial),
            ("no more dials than the limit", vec![], 2, 40, Choice::Wait),
        ] {
            assert_eq!(choose(tunnels, dials, waiting, &LIMITS), expected, "{rule}");
        }
    }
}
