//! Whose agent a client trusts.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

/// The uids a listener may have: one's own, root, and one more by configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnerRule {
    pub(crate) own_uid: u32,
    pub(crate) agent_uid: Option<u32>,
}

impl OwnerRule {
    /// Whether an agent that runs as `uid` may be asked.
    pub(crate) fn accepts(self, uid: u32) -> bool {
        uid == 0 || uid == self.own_uid || Some(uid) == self.agent_uid
    }
}

/// The uid of the process that listens at the other end, as the kernel noted it.
pub(crate) fn listener_uid(stream: &impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(stream, PeerCredentials)?.uid())
}

#[cfg(test)]
mod tests {
    use super::OwnerRule;

    #[test]
    fn own_root_and_the_configured_uid_are_trusted() {
        let rule = OwnerRule {
            own_uid: 1000,
            agent_uid: Some(7),
        };
        for (uid, accepted) in [
            (1000, true),
            (0, true),
            (7, true),
            (8, false),
            (u32::MAX, false),
        ] {
            assert_eq!(rule.accepts(uid), accepted, "{uid}");
        }
        let strict = OwnerRule {
            own_uid: 0,
            agent_uid: None,
        };
        assert!(!strict.accepts(1000), "root does not trust everybody");
    }
}
