//! Flow-control windows (RFC 9113 §5.2 and §6.9): their arithmetic, for streams and connections.

/// RFC 9113 §6.9.1: "A sender MUST NOT allow a flow-control window to exceed 2^31-1 octets."
pub(super) const MAX_WINDOW: u32 = i32::MAX as u32;

/// RFC 9113 §6.9.2: the window of a connection, and of each stream before SETTINGS; octets.
pub(super) const DEFAULT_WINDOW: u32 = 65_535;

/// What we may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow(i32);

/// What the peer may send, and what it will be told that it may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    /// Negative only when a peer filled the default window before it knew of a smaller one.
    available: i64,
    /// Delivered to the application, not yet announced.
    released: u32,
    size: u32,
}

/// A window would leave the range that the protocol gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowError;

impl SendWindow {
    pub(super) fn new(size: u32) -> Self {
        Self(i32::try_from(size).expect("SETTINGS_INITIAL_WINDOW_SIZE was checked on receipt"))
    }

    pub(super) fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Accounts for DATA that is sent; `octets` is at most [`Self::available`].
    pub(super) fn consume(&mut self, octets: usize) {
        debug_assert!(octets <= self.available(), "sent more than the window");
        self.0 -= octets as i32;
    }

    /// A WINDOW_UPDATE. Says whether it opened a window that was closed.
    pub(super) fn grow(&mut self, increment: u32) -> Result<bool, WindowError> {
        let closed = self.0 <= 0;
        self.shift(i64::from(increment))?;
        Ok(closed && self.0 > 0)
    }

    /// RFC 9113 §6.9.2: a change of SETTINGS_INITIAL_WINDOW_SIZE moves every stream's window by the
    /// difference, and may make it negative.
    pub(super) fn shift(&mut self, delta: i64) -> Result<(), WindowError> {
        self.0 = i32::try_from(i64::from(self.0) + delta).map_err(|_| WindowError)?;
        Ok(())
    }
}

impl ReceiveWindow {
    pub(super) fn new(size: u32) -> Self {
        Self { available: i64::from(size), released: 0, size }
    }

    /// DATA of the peer. `grace` is what it may send beyond the window because it cannot have seen
    /// our SETTINGS yet.
    pub(super) fn receive(&mut self, octets: usize, grace: u32) -> Result<(), WindowError> {
        let left = self.available - octets as i64;
        if octets > 0 && left < -i64::from(grace) {
            return Err(WindowError);
        }
        self.available = left;
        Ok(())
    }

    /// Octets that need no room any more. Returns the increment to announce once half of the window
    /// is released: often enough that the peer never stops, and seldom enough to cost nothing.
    pub(super) fn release(&mut self, octets: usize) -> Option<u32> {
        self.released += octets as u32;
        if self.released == 0 || self.released < self.size / 2 {
            return None;
        }
        self.available += i64::from(self.released);
        Some(std::mem::take(&mut self.released))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_window_beyond_2_31_minus_1_is_an_error() {
        let mut window = SendWindow::new(MAX_WINDOW - 1);
        assert_eq!(window.grow(1), Ok(false));
        assert_eq!(window.grow(1), Err(WindowError));
        assert_eq!(window.available(), MAX_WINDOW as usize, "the window stays as it was");
    }

    #[test]
    fn a_shrunk_window_is_negative_and_opens_again() {
        let mut window = SendWindow::new(100);
        window.consume(80);
        window.shift(-90).unwrap();
        assert_eq!(window.available(), 0);
        assert_eq!(window.grow(70), Ok(false), "the window is at 0");
        assert_eq!(window.grow(5), Ok(true));
        assert_eq!(window.available(), 5);
    }

    #[test]
    fn releases_are_announced_at_half_of_the_window() {
        let mut window = ReceiveWindow::new(100);
        window.receive(100, 0).unwrap();
        assert_eq!(window.receive(1, 0), Err(WindowError));
        assert_eq!(window.receive(0, 0), Ok(()), "an empty frame needs no window");
        assert_eq!(window.release(49), None);
        assert_eq!(window.release(1), Some(50));
        window.receive(50, 0).unwrap();
        assert_eq!(window.receive(1, 0), Err(WindowError));
    }

    proptest! {
        /// Whatever is sent, granted and shifted: no overflow, and never more capacity than granted.
        #[test]
        fn send_windows_stay_in_range(
            start in 0..=MAX_WINDOW,
            steps in proptest::collection::vec((0..3_u8, 0..=MAX_WINDOW), 0..64),
        ) {
            let mut window = SendWindow::new(start);
            let mut initial = i64::from(start);
            let mut exact = i64::from(start);
            for (step, amount) in steps {
                match step {
                    0 => {
                        let sent = window.available().min(amount as usize);
                        window.consume(sent);
                        exact -= sent as i64;
                    }
                    1 if window.grow(amount).is_ok() => exact += i64::from(amount),
                    2 => {
                        let delta = i64::from(amount) - initial;
                        if window.shift(delta).is_ok() {
                            initial = i64::from(amount);
                            exact += delta;
                        }
                    }
                    _ => {}
                }
                prop_assert!(exact <= i64::from(MAX_WINDOW));
                prop_assert_eq!(window.available() as i64, exact.max(0));
            }
        }

        /// A peer that always fills its window is never stuck once everything is released.
        #[test]
        fn receive_windows_never_starve(size in 1_u32..1000, reads in proptest::collection::vec(1_usize..400, 1..64)) {
            let mut window = ReceiveWindow::new(size);
            let mut may_send = size as usize;
            let mut held = 0;
            for read in reads {
                window.receive(may_send, 0).unwrap();
                held += may_send;
                may_send = 0;
                let released = read.min(held);
                held -= released;
                may_send += window.release(released).unwrap_or(0) as usize;
                prop_assert!(held > 0 || may_send > 0);
            }
        }
    }
}
