//! What a key or a service account may do in a project. The names are the API's own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A project role, weakest first, so that `role >= Role::GroupOwner` reads as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Role {
    /// May read everything in the project.
    GroupReadOnly,
    /// May also take and delete checkpoints.
    GroupOwner,
}

impl Role {
    pub const ALL: [Role; 2] = [Role::GroupReadOnly, Role::GroupOwner];

    pub fn name(self) -> &'static str {
        match self {
            Role::GroupReadOnly => "GROUP_READ_ONLY",
            Role::GroupOwner => "GROUP_OWNER",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A role that stillpoint does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such role: use GROUP_READ_ONLY or GROUP_OWNER")]
pub struct NoSuchRole;

impl FromStr for Role {
    type Err = NoSuchRole;

    fn from_str(text: &str) -> Result<Self, NoSuchRole> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or(NoSuchRole)
    }
}
