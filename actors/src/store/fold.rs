//! The fold: what the journal says since the last one, laid down in dense form.
//!
//! State planes, queue deletions, heads of the chains, counters and last contacts
//! are written here and nowhere else, in order of their keys, together with the
//! cursor that says how far the journal is folded.

use std::collections::{BTreeMap, HashMap};

use redb::ReadableTable;
use schema::{ChannelNo, Seq};

use super::StoreError;
use super::batch::Batch;
use super::dense;
use super::tables::{COHORT_STATE, COMMAND_COUNT, LAST_POSITION, PUSHED, QueueRow, SEEN, encode};

impl Batch<'_> {
    /// Folds the whole tail, this batch included.
    pub(super) fn fold(&mut self) -> Result<(), StoreError> {
        let nothing = self.unfolded() == 0
            && self.published.seen.is_empty()
            && self.published.pushed.is_empty();
        if nothing || (self.outcome.folded && self.unfolded() == 0) {
            return Ok(());
        }
        let mut heads: HashMap<ChannelNo, u64> = HashMap::new();
        let mut rows: BTreeMap<(ChannelNo, Seq), QueueRow> = BTreeMap::new();
        for tail in &self.published.tail {
            heads.insert(*tail.key(), tail.last);
            rows.extend(
                tail.rows
                    .iter()
                    .map(|(seq, row)| ((*tail.key(), *seq), *row)),
            );
        }
        heads.extend(
            self.outcome
                .last
                .iter()
                .map(|(channel, last)| (*channel, *last)),
        );
        rows.extend(self.outcome.rows.iter().map(|(key, row)| (*key, *row)));

        let mut planes: BTreeMap<Seq, Vec<(ChannelNo, schema::queue::State)>> = BTreeMap::new();
        for ((channel, seq), row) in rows {
            let key = (channel.0, seq.0);
            let direct = self.queue.get(key)?.is_some();
            if !direct {
                planes.entry(seq).or_default().push((channel, row.state));
            } else if row.state.is_final() {
                self.queue.remove(key)?;
            } else {
                self.queue.insert(key, row.pack())?;
            }
        }
        let mut states = self.transaction.open_table(COHORT_STATE)?;
        for (seq, plane) in planes {
            dense::put_states(&mut states, seq.0, &plane)?;
        }
        dense::put_u64(
            &mut self.transaction.open_table(LAST_POSITION)?,
            &sorted(heads),
        )?;
        self.fold_counts()?;
        self.fold_contacts()?;
        self.numbers.folded = self.numbers.position;
        self.outcome.folded = true;
        self.outcome.dirty = true;
        Ok(())
    }

    fn fold_counts(&mut self) -> Result<(), StoreError> {
        let mut counts: BTreeMap<Seq, _> = self
            .published
            .counts
            .iter()
            .map(|entry| (*entry.key(), *entry.value()))
            .collect();
        counts.extend(
            self.outcome
                .counts
                .iter()
                .map(|(seq, counts)| (*seq, *counts)),
        );
        let mut table = self.transaction.open_table(COMMAND_COUNT)?;
        let published = self.published;
        for (seq, counts) in counts {
            table.insert(seq.0, encode(&counts)?.as_slice())?;
            let open: u32 = counts
                .iter()
                .take(schema::queue::State::Acknowledged as usize)
                .sum();
            let fresh = self.outcome.cohorts.iter().any(|(s, _)| *s == seq);
            if open == 0 && (fresh || published.cohorts().contains_key(&seq)) {
                self.outcome.closed_cohorts.push(seq);
            }
        }
        Ok(())
    }

    fn fold_contacts(&mut self) -> Result<(), StoreError> {
        for (map, definition) in [
            (&self.published.seen, SEEN),
            (&self.published.pushed, PUSHED),
        ] {
            let mut taken = HashMap::with_capacity(map.len());
            map.retain(|channel, minutes| {
                taken.insert(*channel, *minutes);
                false
            });
            dense::put_u32(
                &mut self.transaction.open_table(definition)?,
                &sorted(taken),
            )?;
        }
        Ok(())
    }
}

fn sorted<T: Copy>(values: HashMap<ChannelNo, T>) -> Vec<(ChannelNo, T)> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_unstable_by_key(|(channel, _)| *channel);
    values
}
