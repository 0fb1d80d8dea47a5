//! Levels of 2 to 16 bits as a bit stream: level `i` takes bits `i·B … i·B+B−1`, least significant bit first, in two's
//! complement. Eight levels fill B whole bytes, so a group is one shift register of at most 128 bits.

/// Levels in a group.
const GROUP: usize = 8;

/// Writes `levels` to `out`, `bits` each; the unused bits of the last byte are zero.
pub(crate) fn pack(bits: u8, levels: &[i16], out: &mut [u8]) {
    match bits {
        2 => pack_as::<2>(levels, out),
        3 => pack_as::<3>(levels, out),
        4 => pack_as::<4>(levels, out),
        5 => pack_as::<5>(levels, out),
        6 => pack_as::<6>(levels, out),
        7 => pack_as::<7>(levels, out),
        8 => pack_as::<8>(levels, out),
        9 => pack_as::<9>(levels, out),
        10 => pack_as::<10>(levels, out),
        11 => pack_as::<11>(levels, out),
        12 => pack_as::<12>(levels, out),
        13 => pack_as::<13>(levels, out),
        14 => pack_as::<14>(levels, out),
        15 => pack_as::<15>(levels, out),
        16 => pack_as::<16>(levels, out),
        _ => unreachable!("codecs have 2 to 16 bits"),
    }
}

/// Reads `levels.len()` levels of `bits` each from `bytes`.
pub(crate) fn unpack(bits: u8, bytes: &[u8], levels: &mut [i16]) {
    match bits {
        2 => unpack_as::<2>(bytes, levels),
        3 => unpack_as::<3>(bytes, levels),
        4 => unpack_as::<4>(bytes, levels),
        5 => unpack_as::<5>(bytes, levels),
        6 => unpack_as::<6>(bytes, levels),
        7 => unpack_as::<7>(bytes, levels),
        8 => unpack_as::<8>(bytes, levels),
        9 => unpack_as::<9>(bytes, levels),
        10 => unpack_as::<10>(bytes, levels),
        11 => unpack_as::<11>(bytes, levels),
        12 => unpack_as::<12>(bytes, levels),
        13 => unpack_as::<13>(bytes, levels),
        14 => unpack_as::<14>(bytes, levels),
        15 => unpack_as::<15>(bytes, levels),
        16 => unpack_as::<16>(bytes, levels),
        _ => unreachable!("codecs have 2 to 16 bits"),
    }
}

/// The bits of the last byte that no level of `count` uses.
pub(crate) fn padding_mask(bits: u8, count: usize) -> u8 {
    match (count * usize::from(bits)) % 8 {
        0 => 0,
        used => 0xff << used,
    }
}

fn pack_as<const BITS: usize>(levels: &[i16], out: &mut [u8]) {
    let (groups, tail) = levels.as_chunks::<GROUP>();
    let (whole, rest) = out.split_at_mut(groups.len() * BITS);
    for (levels, out) in groups.iter().zip(whole.as_chunks_mut::<BITS>().0) {
        *out = pack_group::<BITS>(levels);
    }
    if !tail.is_empty() {
        let mut levels = [0i16; GROUP];
        levels[..tail.len()].copy_from_slice(tail);
        rest.copy_from_slice(&pack_group::<BITS>(&levels)[..rest.len()]);
    }
}

#[inline(always)]
fn pack_group<const BITS: usize>(levels: &[i16; GROUP]) -> [u8; BITS] {
    let mask = (1u128 << BITS) - 1;
    let mut register = 0u128;
    for (index, level) in levels.iter().enumerate() {
        register |= (u128::from(level.cast_unsigned()) & mask) << (index * BITS);
    }
    let mut out = [0u8; BITS];
    out.copy_from_slice(&register.to_le_bytes()[..BITS]);
    out
}

fn unpack_as<const BITS: usize>(bytes: &[u8], levels: &mut [i16]) {
    let (groups, tail) = levels.as_chunks_mut::<GROUP>();
    let (whole, rest) = bytes.split_at(groups.len() * BITS);
    for (levels, bytes) in groups.iter_mut().zip(whole.as_chunks::<BITS>().0) {
        *levels = unpack_group::<BITS>(bytes);
    }
    if !tail.is_empty() {
        let mut bytes = [0u8; BITS];
        bytes[..rest.len()].copy_from_slice(rest);
        tail.copy_from_slice(&unpack_group::<BITS>(&bytes)[..tail.len()]);
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the low 16 bits of the register are what is wanted")]
fn unpack_group<const BITS: usize>(bytes: &[u8; BITS]) -> [i16; GROUP] {
    let mut register = [0u8; 16];
    register[..BITS].copy_from_slice(bytes);
    let register = u128::from_le_bytes(register);
    let mut levels = [0i16; GROUP];
    for (index, level) in levels.iter_mut().enumerate() {
        // Up to the top of 16 bits and back down again, to spread the sign.
        let low = (register >> (index * BITS)) as u16;
        *level = low.unbounded_shl(16 - BITS as u32).cast_signed() >> (16 - BITS);
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_every_width_and_count_come_back() {
        for bits in 2..=16u8 {
            let limit = 1i32 << (bits - 1);
            for count in 0..=33usize {
                let levels: Vec<i16> = (0..count)
                    .map(|index| {
                        let spread = i32::try_from(index).expect("small") * 7919 % (2 * limit) - limit;
                        i16::try_from(spread).expect("in range")
                    })
                    .collect();
                let mut bytes = vec![0xaa; (count * usize::from(bits)).div_ceil(8)];
                pack(bits, &levels, &mut bytes);
                let mut back = vec![0; count];
                unpack(bits, &bytes, &mut back);
                assert_eq!(back, levels, "{bits} bits, {count} levels");
                assert_eq!(bytes.last().copied().unwrap_or(0) & padding_mask(bits, count), 0);
            }
        }
    }

    #[test]
    fn the_bit_stream_is_as_drawn() {
        // Levels 1, -1, 2, -2 of 3 bits: 001 111 010 110, first level lowest.
        let mut bytes = [0u8; 2];
        pack(3, &[1, -1, 2, -2], &mut bytes);
        assert_eq!(bytes, [0b1011_1001, 0b0000_1100]);
    }
}
