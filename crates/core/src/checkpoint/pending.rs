//! What the machine remembers of a command under way: how its reply is to be handled.

use super::{PartId, Token};

/// What a command is for; an action's reply is handled by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pending {
    Save,
    Survey,
    ReadBalancer,
    NoteHold,
    Stop,
    Look,
    Clock,
    Token(PartId),
    PutBack,
    Find(PartId, Token),
    Resurvey,
    Wait(Next),
}

impl Pending {
    pub(super) fn is_save(&self) -> bool {
        matches!(self, Pending::Save | Pending::Wait(Next::Save))
    }

    /// What goes on although the checkpoint has failed.
    pub(super) fn is_owed(&self) -> bool {
        self.is_save() || matches!(self, Pending::PutBack | Pending::Wait(Next::PutBack))
    }
}

/// What to do after a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Save,
    Survey,
    Look,
    Clock,
    PutBack,
    Find(PartId, Token),
    Resurvey,
}
