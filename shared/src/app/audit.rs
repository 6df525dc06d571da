//! Going through the audit log: to verify it, to export it. Memory is bounded by a page of rows, and no
//! transaction waits for whoever takes them.

use super::App;
use crate::domain::audit::{Break, Head, INSTALLATION, Row, Verifier};
use crate::domain::id::AccountId;
use crate::store::{Store, StoreError, Told};

/// Rows read at once.
const PAGE: i64 = 200;
/// Breaks that are told; more are only counted.
const MOST: usize = 100;

/// Goes through whole chains, one after the other, each in the order of its rows.
pub struct AuditWalk {
    store: Store,
    /// At this chain; none = at the end.
    chain: Option<AccountId>,
    /// From this number on.
    from: i64,
    /// Through all chains?
    all: bool,
}

/// Rows of one chain that follow each other.
#[derive(Debug)]
pub struct AuditPiece {
    /// Which chain.
    pub chain: AccountId,
    /// The rows.
    pub rows: Vec<Row>,
    /// Is it the chain's last piece?
    pub last: bool,
    /// The chain's head at the moment when the rows were read.
    pub head: Option<Head>,
}

impl AuditWalk {
    /// The next piece; none at the end.
    pub async fn next(&mut self) -> Result<Option<AuditPiece>, StoreError> {
        let Some(chain) = self.chain else { return Ok(None) };
        let (rows, head) = self.store.audit_rows(chain, self.from, PAGE).await?;
        let following = rows.last().and_then(|row| row.seq.checked_add(1));
        let goes_on = following.filter(|_| rows.len() as i64 == PAGE);
        match goes_on {
            Some(from) => self.from = from,
            None => {
                self.from = i64::MIN;
                self.chain = match self.all {
                    true => self.store.next_audit_chain(chain).await?,
                    false => None,
                };
            }
        }
        Ok(Some(AuditPiece { chain, rows, last: goes_on.is_none(), head }))
    }
}

/// What a verification has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Chains that have rows or a head.
    pub chains: u64,
    /// Rows that were read.
    pub rows: u64,
    /// How many places are broken.
    pub broken: u64,
    /// The first of them, by chain and row.
    pub breaks: Vec<Break>,
}

impl Verified {
    fn note(&mut self, found: Option<Break>) {
        if let Some(found) = found {
            self.broken += 1;
            if self.breaks.len() < MOST {
                self.breaks.push(found);
            }
        }
    }
}

impl App {
    /// Goes through the audit log of an account, or through all of it, the installation's first.
    pub fn walk_audit(&self, account: Option<AccountId>) -> AuditWalk {
        AuditWalk {
            store: self.store.clone(),
            chain: Some(account.unwrap_or(INSTALLATION)),
            // Rows have numbers from 1, but for those that somebody made up.
            from: i64::MIN,
            all: account.is_none(),
        }
    }

    /// Is the audit log of an account, or all of it, as it was written? `told` hears how many rows were read,
    /// and of how many.
    pub async fn verify_audit(
        &self,
        account: Option<AccountId>,
        told: Told<'_>,
    ) -> Result<Verified, StoreError> {
        let all = self.store.count_audit_rows(account).await?;
        let mut walk = self.walk_audit(account);
        let mut found = Verified::default();
        let mut verifier: Option<Verifier> = None;
        let mut any = false;
        while let Some(piece) = walk.next().await? {
            let mut at = verifier.take().unwrap_or_else(|| Verifier::new(piece.chain));
            for row in &piece.rows {
                found.rows += 1;
                found.note(at.row(row));
            }
            any |= !piece.rows.is_empty();
            if piece.last {
                found.chains += u64::from(any || piece.head.is_some());
                found.note(at.end(piece.head.as_ref()));
                any = false;
            } else {
                verifier = Some(at);
            }
            told(found.rows.min(all), all);
        }
        Ok(found)
    }
}
