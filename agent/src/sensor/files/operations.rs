//! What was done to a file.

use buildtrail_agent_abi::FileAction;
use buildtrail_proto::v1::Operation;

/// A set of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations(u16);

impl Operations {
    /// Opened.
    pub const OPEN: Self = Self(1);
    /// Read.
    pub const READ: Self = Self(1 << 1);
    /// Written.
    pub const WRITE: Self = Self(1 << 2);
    /// Closed.
    pub const CLOSE: Self = Self(1 << 3);
    /// Mapped into memory.
    pub const MAP: Self = Self(1 << 4);
    /// A descriptor came from another process.
    pub const RECEIVE: Self = Self(1 << 5);
    /// Rights, owner or length changed.
    pub const ATTRIBUTES: Self = Self(1 << 6);
    /// Given another name.
    pub const LINK: Self = Self(1 << 7);
    /// A name removed.
    pub const UNLINK: Self = Self(1 << 8);
    /// Renamed.
    pub const RENAME: Self = Self(1 << 9);
    /// Replaced by another file.
    pub const REPLACE: Self = Self(1 << 10);

    /// In the order in which events list them. Closing is no news.
    const REPORTED: [(Self, Operation); 10] = [
        (Self::OPEN, Operation::Open),
        (Self::RECEIVE, Operation::Receive),
        (Self::READ, Operation::Read),
        (Self::WRITE, Operation::Write),
        (Self::MAP, Operation::Map),
        (Self::ATTRIBUTES, Operation::ChangeAttributes),
        (Self::LINK, Operation::Link),
        (Self::UNLINK, Operation::Unlink),
        (Self::RENAME, Operation::Rename),
        (Self::REPLACE, Operation::Replace),
    ];

    /// `self` where `happened`, else nothing.
    #[must_use]
    pub fn when(self, happened: bool) -> Self {
        if happened { self } else { Self::default() }
    }

    /// Both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What the programs reported; `None` for an action that this build does not know.
    #[must_use]
    pub fn of_action(action: u16) -> Option<Self> {
        const ACTIONS: [(FileAction, Operations); 8] = [
            (FileAction::Open, Operations::OPEN),
            (FileAction::Receive, Operations::RECEIVE),
            (FileAction::Map, Operations::MAP),
            (FileAction::Attributes, Operations::ATTRIBUTES),
            (FileAction::Link, Operations::LINK),
            (FileAction::Unlink, Operations::UNLINK),
            (FileAction::Rename, Operations::RENAME),
            (FileAction::Replace, Operations::REPLACE),
        ];
        ACTIONS.iter().find(|(known, _)| *known as u16 == action).map(|(_, operations)| *operations)
    }

    /// As events list them.
    pub fn reported(self) -> impl Iterator<Item = Operation> {
        Self::REPORTED
            .into_iter()
            .filter(move |(operation, _)| self.contains(*operation))
            .map(|(_, reported)| reported)
    }
}
