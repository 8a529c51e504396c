//! Rights that a job's processes take beyond those that they were given.

use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    catalog::base_name, clock::BootTime, event::text::Notes, job::Membership, process::Process,
    sensor::records::Users,
};

impl Pipeline {
    /// A job's process executed a program and has another user's rights now (sudo, su, any program with the set-user-id bit).
    pub(super) fn look_for_rights(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        before: Users,
    ) {
        if !gains(before, process.users) {
            return;
        }
        let mut notes = Notes::default();
        let body = v1::Escape {
            kind: v1::EscapeKind::User.into(),
            way: notes.text(base_name(&process.executable)),
            target: format!("user {}", process.users.effective),
            ..v1::Escape::default()
        };
        self.emit(time, Some(membership), Some(process), notes, Body::Escape(body));
    }
}

/// Root may be anybody anyway; others only who they are.
fn gains(before: Users, now: Users) -> bool {
    let had = [before.real, before.effective];
    !had.contains(&0) && !had.contains(&now.effective)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rights_that_were_not_there_are_gained() {
        let users = |real, effective| Users { real, effective };
        let table = [
            (users(1001, 1001), users(1001, 0), true),
            (users(1001, 1001), users(1002, 1002), true),
            (users(1001, 1001), users(1001, 1001), false),
            (users(1001, 0), users(0, 0), false),
            (users(1001, 1002), users(1001, 1001), false),
            (users(0, 0), users(1001, 1001), false),
        ];
        for (before, now, gained) in table {
            assert_eq!(gains(before, now), gained, "{before:?} → {now:?}");
        }
    }
}
