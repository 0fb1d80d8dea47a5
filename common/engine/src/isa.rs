//! Which instructions the kernels may use.

/// A set of instructions that kernels are written for; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// What the compilation target promises: plain Rust, on every processor. It is the definition of every kernel.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// The same with AVX-512 (F, BW, DQ, VL) and its VNNI and VPOPCNTDQ instructions.
    Avx512,
}

/// Proof that this processor has a level's instructions: only this module makes one, after it has looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Isa(Level);

impl Isa {
    /// The highest level of this processor that is not above `limit`.
    pub(crate) fn up_to(limit: Level) -> Self {
        let found = detect();
        Self(if found < limit { found } else { limit })
    }

    /// The level.
    #[inline]
    pub(crate) fn level(self) -> Level {
        self.0
    }

    /// Every level of this processor.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let levels = [Level::Portable, Level::Avx2, Level::Avx512];
        levels.into_iter().filter(|level| *level <= detect()).map(Self).collect()
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma") && has!("f16c") && has!("popcnt") && has!("bmi1")) {
        return Level::Portable;
    }
    let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    if wide && has!("avx512vnni") && has!("avx512vpopcntdq") { Level::Avx512 } else { Level::Avx2 }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Portable
}
