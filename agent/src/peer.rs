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

/// Which uids a socket answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The agent's own uid; root is admitted too.
    own_uid: u32,
    sharing: Sharing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Sharing {
    /// Nobody else.
    Private,
    /// Whoever the socket file's group and mode let through.
    Group,
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
                Sharing::Group
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

    /// Whether somebody of `uid` is answered who has shown what only the job's own processes were told.
    ///
    /// Root's job hands that on to whomever it becomes (`gosu`, `su`, `setpriv` in a container's entry point), and they could ask
    /// the platform's own endpoint as well.
    #[must_use]
    pub fn admits_holder(&self, uid: u32) -> bool {
        let peer = Peer {
            uid,
            gid: OVERFLOW_UID,
            pid: None,
        };
        self.admits(&peer) || (self.own_uid == 0 && uid != OVERFLOW_UID)
    }

    /// Whether `peer` is of the agent's own uid.
    #[must_use]
    pub fn is_own(&self, peer: &Peer) -> bool {
        peer.uid == self.own_uid
    }

    /// Whether `peer` is answered.
    #[must_use]
    pub fn admits(&self, peer: &Peer) -> bool {
        if peer.uid == self.own_uid || peer.uid == 0 {
            return true;
        }
        match &self.sharing {
            _ if peer.uid == OVERFLOW_UID => false,
            Sharing::Private => false,
            Sharing::Group => true,
            Sharing::Uids(uids) => uids.contains(&peer.uid),
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
    use super::{Admission, OVERFLOW_UID, Peer};

    fn peer(uid: u32) -> Peer {
        Peer {
            uid,
            gid: uid,
            pid: Some(1),
        }
    }

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
            let seen = [1000, 0, 2000, 3000, OVERFLOW_UID].map(|uid| admission.admits(&peer(uid)));
            assert_eq!(seen, expected, "{admission:?}");
        }
    }

    #[test]
    fn whoever_was_told_the_secret_is_admitted_by_roots_agent_alone() {
        let seen = |admission: Admission| {
            [1000, 0, 2000, OVERFLOW_UID].map(|uid| admission.admits_holder(uid))
        };
        assert_eq!(seen(Admission::private(1000)), [true, true, false, false]);
        assert_eq!(seen(Admission::private(0)), [true, true, true, false]);
        let shared = Admission::shared(1000, vec![2000]);
        assert_eq!(seen(shared), [true, true, true, false]);
    }

    #[test]
    fn nobody_is_admitted_when_the_agent_itself_runs_as_nobody() {
        assert!(Admission::private(OVERFLOW_UID).admits(&peer(OVERFLOW_UID)));
    }
}
