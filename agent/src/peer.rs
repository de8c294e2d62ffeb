//! Who asks: facts from the kernel and nothing else.

use std::fmt;

/// The uid the kernel shows where the real one has no number in this user namespace.
///
/// It stands for *everybody* without a mapping, so nothing may ever be allowed by it.
pub const OVERFLOW_UID: u32 = 65534;

/// The process at the other end of a connection, as the kernel saw it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
    /// Its pid in our pid namespace; `None` when it lives in one we cannot see. It may have been reused since.
    pub pid: Option<u32>,
}

/// Which uids one way in answers: the socket, or an identity endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The agent's own uid; root is admitted too.
    own_uid: u32,
    sharing: Sharing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Sharing {
    /// No other uid.
    Private,
    /// Every uid that gets so far: the socket file's group and mode let it through, or it has the endpoint's secret.
    Reachable,
    /// Of those, only these.
    Uids(Vec<u32>),
}

impl Admission {
    /// A socket for the agent's own uid.
    #[must_use]
    pub fn private(own_uid: u32) -> Self {
        Self {
            own_uid,
            sharing: Sharing::Private,
        }
    }

    /// A socket shared with a group: everybody the file's mode admits, or only `uids` when there are any.
    #[must_use]
    pub fn shared(own_uid: u32, uids: Vec<u32>) -> Self {
        Self {
            own_uid,
            sharing: if uids.is_empty() {
                Sharing::Reachable
            } else {
                Sharing::Uids(uids)
            },
        }
    }

    /// The agent's own uid.
    #[must_use]
    pub fn own_uid(&self) -> u32 {
        self.own_uid
    }

    /// Which uids the endpoint of a `run` answers, if the socket answers these.
    ///
    /// Root's job hands its secret on to whomever it becomes (`gosu`, `su`, `setpriv` in a container's entry point), and they could
    /// ask the platform's own endpoint as well. A list of uids is the last word here too.
    #[must_use]
    pub fn of_run_endpoint(&self) -> Self {
        let sharing = match &self.sharing {
            Sharing::Private if self.own_uid == 0 => Sharing::Reachable,
            sharing => sharing.clone(),
        };
        Self {
            own_uid: self.own_uid,
            sharing,
        }
    }

    /// Whether `peer` is of the agent's own uid.
    #[must_use]
    pub fn is_own(&self, peer: &Peer) -> bool {
        peer.uid == self.own_uid
    }

    /// Whether a caller of `uid` is answered.
    #[must_use]
    pub fn admits(&self, uid: u32) -> bool {
        if uid == self.own_uid || uid == 0 {
            return true;
        }
        match &self.sharing {
            _ if uid == OVERFLOW_UID => false,
            Sharing::Private => false,
            Sharing::Reachable => true,
            Sharing::Uids(uids) => uids.contains(&uid),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "uid {} pid {pid}", self.uid),
            None => write!(f, "uid {} in another pid namespace", self.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Admission, OVERFLOW_UID};

    #[test]
    fn who_is_admitted() {
        let table = [
            (Admission::private(1000), [true, true, false, false, false]),
            (
                Admission::shared(1000, vec![]),
                [true, true, true, true, false],
            ),
            (
                Admission::shared(1000, vec![2000, OVERFLOW_UID]),
                [true, true, true, false, false],
            ),
        ];
        for (admission, expected) in table {
            let seen = [1000, 0, 2000, 3000, OVERFLOW_UID].map(|uid| admission.admits(uid));
            assert_eq!(seen, expected, "{admission:?}");
        }
    }

    #[test]
    fn s2_the_endpoint_of_roots_run_answers_every_uid_unless_there_is_a_list() {
        let seen = |admission: Admission| {
            let admission = admission.of_run_endpoint();
            [1000, 0, 2000, OVERFLOW_UID].map(|uid| admission.admits(uid))
        };
        assert_eq!(seen(Admission::private(1000)), [true, true, false, false]);
        assert_eq!(seen(Admission::private(0)), [true, true, true, false]);
        let listed = |own| Admission::shared(own, vec![2000]);
        assert_eq!(seen(listed(1000)), [true, true, true, false]);
        assert_eq!(seen(listed(0)), [false, true, true, false]);
        assert_eq!(
            seen(Admission::shared(0, vec![])),
            [true, true, true, false]
        );
    }

    #[test]
    fn nobody_is_admitted_when_the_agent_itself_runs_as_nobody() {
        assert!(Admission::private(OVERFLOW_UID).admits(OVERFLOW_UID));
    }
}
