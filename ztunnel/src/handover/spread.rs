//! Which worker accepts on which of the listening sockets that were taken over.
//!
//! The kernel spreads the connections of a port over all of its sockets, and one that it has put into a
//! socket stays there. So each socket is somebody's, for as long as the pod is captured, whatever the
//! number of workers on either side; only workers that would have none open new ones.

use crate::capture::listener::Listeners;
use crate::capture::rules::CapturePort;

/// The share of each of `workers`. A share may lack a port: that worker needs a socket of its own.
pub fn spread(mut taken: Listeners, workers: usize) -> Vec<Listeners> {
    let mut shares: Vec<Listeners> = (0..workers).map(|_| Listeners::default()).collect();
    for port in CapturePort::ALL {
        for (number, listener) in taken.of_mut(port).drain(..).enumerate() {
            shares[number % workers].of_mut(port).push(listener);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn each_socket_is_somebodys_whatever_the_number_of_workers() {
        for (sockets, workers, expected) in [
            (2, 2, vec![1, 1]),
            (4, 2, vec![2, 2]),
            (3, 2, vec![2, 1]),
            (1, 3, vec![1, 0, 0]),
            (0, 1, vec![0]),
        ] {
            let mut taken = Listeners::default();
            for port in CapturePort::ALL {
                for _ in 0..sockets {
                    taken.of_mut(port).push(TcpListener::bind("127.0.0.1:0").unwrap());
                }
            }
            let shares = spread(taken, workers);
            for port in CapturePort::ALL {
                let counts: Vec<usize> = shares.iter().map(|share| share.of(port).len()).collect();
                assert_eq!(counts, expected, "{sockets} sockets of {port:?} for {workers} workers");
            }
        }
    }
}
