//! What of a part's data goes into the target: collections by their names there, and of each the documents that the
//! part's shard owned.

use std::borrow::Cow;
use std::sync::Arc;

use bson::raw::RawDocument;
use stillpoint_fold::{Catalogue, Collection, Uuid};

use super::RestoreError;
use super::load::parts_of;
use super::naming::{Naming, VIEWS};
use crate::snapshots::owners::Owner;

#[derive(Debug, Clone)]
pub struct Selection {
    pub owner: Owner,
    pub naming: Arc<Naming>,
    /// Whether the part's target takes the data of others, too. What there is to say of a collection then say
    /// those that own something of it.
    pub merges: bool,
}

impl Selection {
    /// What a collection is called in the target; none if nothing of it goes there.
    pub fn name(&self, uuid: Uuid, collection: &Collection) -> Option<String> {
        self.naming.of(&collection.ns).filter(|_| !self.merges || self.owner.owns_any(uuid))
    }

    /// All of them, with their names in the target.
    pub fn collections<'s, 'c>(
        &'s self,
        catalogue: &'c Catalogue,
    ) -> impl Iterator<Item = (Uuid, &'c Collection, String)> + use<'s, 'c> {
        catalogue.iter().filter_map(|(uuid, one)| Some((uuid, one, self.name(uuid, one)?)))
    }

    /// A document as it goes into the collection that is called `ns` in the target; none if it does not.
    pub fn document<'a>(
        &self,
        uuid: Uuid,
        ns: &str,
        document: &'a RawDocument,
    ) -> Result<Option<Cow<'a, RawDocument>>, RestoreError> {
        if !self.owner.owns(uuid, ns, document).map_err(RestoreError::of_ownership)? {
            return Ok(None);
        }
        Ok(match parts_of(ns).1 == VIEWS {
            true => self.naming.view(document).map(Cow::Owned),
            false => Some(Cow::Borrowed(document)),
        })
    }
}
