//! Dense chunks: one value a channel, many channels a row.
//!
//! Read and changed in place as little-endian arrays of fixed length; a chunk that
//! is not there holds zeros.

use redb::{ReadableTable, Table};
use schema::ChannelNo;
use schema::queue::State;

use super::StoreError;

/// Channels in a chunk of journal heads (u64 each, 4 KiB).
pub(super) const HEADS: u32 = 512;
/// Channels in a chunk of minutes (u32 each, 4 KiB).
pub(super) const MINUTES: u32 = 1024;
/// Channels in a chunk of a state plane (4 bits each, 2 KiB).
pub(super) const PLANE: u32 = 4096;

/// The u64 of a channel in its chunk of [`HEADS`].
pub(super) fn u64_at(chunk: &[u8], channel: ChannelNo) -> Option<u64> {
    let at = (channel.0 % HEADS) as usize * 8;
    let bytes = chunk.get(at..at + 8)?;
    bytes
        .try_into()
        .ok()
        .map(u64::from_le_bytes)
        .filter(|value| *value != 0)
}

/// The u32 of a channel in its chunk of [`MINUTES`].
pub(super) fn u32_at(chunk: &[u8], channel: ChannelNo) -> Option<u32> {
    let at = (channel.0 % MINUTES) as usize * 4;
    let bytes = chunk.get(at..at + 4)?;
    bytes
        .try_into()
        .ok()
        .map(u32::from_le_bytes)
        .filter(|value| *value != 0)
}

/// The state of a channel in its chunk of a plane; none when it is as released.
pub(super) fn nibble(chunk: &[u8], channel: ChannelNo) -> Option<State> {
    let place = channel.0 % PLANE;
    let byte = *chunk.get((place / 2) as usize)?;
    let number = if place.is_multiple_of(2) {
        byte & 15
    } else {
        byte >> 4
    };
    State::from_number(number).filter(|state| *state != State::Pending)
}

/// Writes u64 values, sorted by channel, into chunks of [`HEADS`].
pub(super) fn put_u64(
    table: &mut Table<'_, u32, &'static [u8]>,
    values: &[(ChannelNo, u64)],
) -> Result<(), StoreError> {
    put(table, values, HEADS, 8, |slot, value| {
        slot.copy_from_slice(&value.to_le_bytes())
    })
}

/// Writes u32 values, sorted by channel, into chunks of [`MINUTES`].
pub(super) fn put_u32(
    table: &mut Table<'_, u32, &'static [u8]>,
    values: &[(ChannelNo, u32)],
) -> Result<(), StoreError> {
    put(table, values, MINUTES, 4, |slot, value| {
        slot.copy_from_slice(&value.to_le_bytes())
    })
}

/// Writes states, sorted by channel, into one plane.
pub(super) fn put_states(
    table: &mut Table<'_, (u64, u32), &'static [u8]>,
    seq: u64,
    states: &[(ChannelNo, State)],
) -> Result<(), StoreError> {
    for group in states.chunk_by(|a, b| a.0.0 / PLANE == b.0.0 / PLANE) {
        let Some(key) = group.first().map(|(channel, _)| (seq, channel.0 / PLANE)) else {
            continue;
        };
        let mut chunk = vec![0; PLANE as usize / 2];
        if let Some(stored) = table.get(key)? {
            copy(&mut chunk, stored.value());
        }
        for (channel, state) in group {
            let place = channel.0 % PLANE;
            if let Some(byte) = chunk.get_mut((place / 2) as usize) {
                let number = *state as u8;
                *byte = if place.is_multiple_of(2) {
                    *byte & 0xf0 | number
                } else {
                    *byte & 0x0f | number << 4
                };
            }
        }
        table.insert(key, chunk.as_slice())?;
    }
    Ok(())
}

fn put<T: Copy>(
    table: &mut Table<'_, u32, &'static [u8]>,
    values: &[(ChannelNo, T)],
    per_chunk: u32,
    width: usize,
    set: impl Fn(&mut [u8], T),
) -> Result<(), StoreError> {
    for group in values.chunk_by(|a, b| a.0.0 / per_chunk == b.0.0 / per_chunk) {
        let Some(key) = group.first().map(|(channel, _)| channel.0 / per_chunk) else {
            continue;
        };
        let mut chunk = vec![0; per_chunk as usize * width];
        if let Some(stored) = table.get(key)? {
            copy(&mut chunk, stored.value());
        }
        for (channel, value) in group {
            let at = (channel.0 % per_chunk) as usize * width;
            if let Some(slot) = chunk.get_mut(at..at + width) {
                set(slot, *value);
            }
        }
        table.insert(key, chunk.as_slice())?;
    }
    Ok(())
}

fn copy(chunk: &mut [u8], stored: &[u8]) {
    for (to, from) in chunk.iter_mut().zip(stored) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_where_they_were_put() {
        let mut chunk = vec![0; PLANE as usize / 2];
        assert_eq!(nibble(&chunk, ChannelNo(5)), None);
        chunk[2] = 0xa5;
        assert_eq!(nibble(&chunk, ChannelNo(4)), Some(State::Acknowledged));
        assert_eq!(nibble(&chunk, ChannelNo(4096 + 5)), Some(State::Cancelled));
        assert_eq!(u64_at(&[1, 0, 0, 0, 0, 0, 0, 0], ChannelNo(512)), Some(1));
        assert_eq!(u32_at(&[0; 8], ChannelNo(1)), None);
    }
}
