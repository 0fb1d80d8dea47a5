//! The two loops that convolutions spend their time in, compiled for AVX-512, for AVX2 with FMA, and for any processor.
//!
//! Both multiply values that are broadcast one by one with rows of several vectors, and keep a tile of sums in registers, so
//! nothing is packed or transposed on the way. A sum's additions come in the same order whatever the width of the vectors; the
//! portable build rounds each product, the others fuse it with its addition.

/// Vectors of any build end within this many values: rows that kernels read whole are padded to a multiple of it.
pub(crate) const PAD: usize = 16;

/// `dst[targets[i] + j] = start + Σ_{r < rows} Σ_{t < run} x[bases[i] + r·row_step + t] · w[(r·run + t)·w_step + j]`
/// for each position `i` and each column `j < columns`.
pub(crate) struct Product<'a> {
    pub(crate) x: &'a [f32],
    /// Where each position's values begin in `x`.
    pub(crate) bases: &'a [usize],
    pub(crate) rows: usize,
    pub(crate) row_step: usize,
    pub(crate) run: usize,
    pub(crate) w: &'a [f32],
    /// Values between two rows of `w`: a multiple of [`PAD`], at least `columns`.
    pub(crate) w_step: usize,
    pub(crate) columns: usize,
    /// Where each position's sums go in `dst`.
    pub(crate) targets: &'a [usize],
    /// Positions come in groups of this many; those of a group have targets that do not overlap.
    pub(crate) group: usize,
    /// What sums start from: a bias of `w_step` values, or what `dst` holds.
    pub(crate) start: Option<&'a [f32]>,
}

/// `dw[(r·run + t)·w_step + j] += Σ_{y < height} Σ_{z < width} x[r·row_step + t + y·step_y + z·step_x] · dy[(y·width + z)·columns + j]`
/// for each `r < rows`, `t < run` and `j < columns`; what it adds beyond `columns` in a row of `dw` means nothing.
pub(crate) struct Outer<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) row_step: usize,
    pub(crate) run: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) step_y: usize,
    pub(crate) step_x: usize,
    /// Readable up to `PAD` values beyond its last row.
    pub(crate) dy: &'a [f32],
    pub(crate) columns: usize,
    /// As in [`Product`].
    pub(crate) w_step: usize,
}

/// A build of the two loops: `$tall` rows of one or two vectors make a tile, or `$low` of `$wide` vectors.
macro_rules! build {
    (
        $name:ident, $lanes:literal, $vector:ty, wide: $wide:literal, tiles: [$($v:literal x [$($m:literal),+]),+],
        $(feature: $feature:literal,)?
        zero: $zero:expr, load: $load:expr, store: $store:expr, splat: $splat:expr, fma: $fma:expr $(,)?
    ) => {
        #[allow(unsafe_code, reason = "vector loads and stores through pointers, whose bounds the callers check")]
        pub(super) mod $name {
            #[allow(unused_imports, reason = "the portable build needs none")]
            #[cfg(target_arch = "x86_64")]
            use std::arch::x86_64::*;

            use super::{Outer, PAD, Product};

            const LANES: usize = $lanes;

            /// The most rows of a tile of `vectors` vectors.
            fn height(vectors: usize) -> usize {
                match vectors {
                    $($v => [$($m),+].len(),)+
                    _ => unreachable!("blocks have at most {} vectors", $wide),
                }
            }

            /// Splits `count` into parts of at most `most`, as equal as can be: gives the first of them.
            fn part(count: usize, most: usize) -> usize {
                count.div_ceil(count.div_ceil(most))
            }

            /// # Safety
            /// The processor has the features of this build, and every index of [`Product`]'s formula is within its slice, with
            /// whole vectors read from `w` and `start`.
            $(#[target_feature(enable = $feature)])?
            pub(crate) unsafe fn product(job: &Product<'_>, dst: &mut [f32]) {
                let dst = dst.as_mut_ptr();
                let vectors_total = job.columns.div_ceil(LANES);
                let mut vector = 0;
                while vector < vectors_total {
                    let vectors = part(vectors_total - vector, $wide);
                    let most = height(vectors);
                    for group in (0..job.bases.len()).step_by(job.group) {
                        let end = job.bases.len().min(group + job.group);
                        let mut first = group;
                        while first < end {
                            let rows = part(end - first, most);
                            // SAFETY: the caller's promise.
                            unsafe {
                                match (vectors, rows) {
                                    $($(($v, $m) => tile::<$m, $v>(job, first, vector * LANES, dst),)+)+
                                    _ => unreachable!("parts are at most as large as the largest tile"),
                                }
                            }
                            first += rows;
                        }
                    }
                    vector += vectors;
                }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn tile<const M: usize, const V: usize>(job: &Product<'_>, first: usize, column: usize, dst: *mut f32) {
                // SAFETY: indices follow the formula, which the caller has checked; the last vector of a row goes through a
                // buffer of its own where the row is no whole number of vectors.
                unsafe {
                    let mut x = [job.x.as_ptr(); M];
                    let mut to = [dst; M];
                    for i in 0..M {
                        x[i] = x[i].add(job.bases[first + i]);
                        to[i] = dst.add(job.targets[first + i] + column);
                    }
                    let left = job.columns - column;
                    let whole = left >= V * LANES;
                    let mut sums = [[$zero; V]; M];
                    match job.start {
                        Some(start) => {
                            for v in 0..V {
                                let start = $load(start.as_ptr().add(column + v * LANES));
                                for sums in &mut sums {
                                    sums[v] = start;
                                }
                            }
                        }
                        None => {
                            for i in 0..M {
                                for v in 0..V {
                                    if v + 1 < V || whole {
                                        sums[i][v] = $load(to[i].add(v * LANES));
                                    } else {
                                        let mut last = [0f32; LANES];
                                        let count = left - v * LANES;
                                        std::ptr::copy_nonoverlapping(to[i].add(v * LANES), last.as_mut_ptr(), count);
                                        sums[i][v] = $load(last.as_ptr());
                                    }
                                }
                            }
                        }
                    }
                    let mut w = job.w.as_ptr().add(column);
                    for row in 0..job.rows {
                        let offset = row * job.row_step;
                        for t in offset..offset + job.run {
                            let mut weights = [$zero; V];
                            for v in 0..V {
                                weights[v] = $load(w.add(v * LANES));
                            }
                            for i in 0..M {
                                let value = $splat(*x[i].add(t));
                                for v in 0..V {
                                    sums[i][v] = $fma(value, weights[v], sums[i][v]);
                                }
                            }
                            w = w.add(job.w_step);
                        }
                    }
                    for i in 0..M {
                        for v in 0..V {
                            if v + 1 < V || whole {
                                $store(to[i].add(v * LANES), sums[i][v]);
                            } else {
                                let mut last = [0f32; LANES];
                                $store(last.as_mut_ptr(), sums[i][v]);
                                std::ptr::copy_nonoverlapping(last.as_ptr(), to[i].add(v * LANES), left - v * LANES);
                            }
                        }
                    }
                }
            }

            /// # Safety
            /// The processor has the features of this build, and every index of [`Outer`]'s formula is within its slice, with
            /// rows of `dy` read up to the next multiple of [`PAD`] and whole rows of `dw` written.
            $(#[target_feature(enable = $feature)])?
            pub(crate) unsafe fn outer(job: &Outer<'_>, dw: &mut [f32]) {
                const { assert!(PAD % LANES == 0, "rows are whole numbers of vectors") };
                let dw = dw.as_mut_ptr();
                let vectors_total = job.columns.div_ceil(LANES);
                let mut vector = 0;
                while vector < vectors_total {
                    let vectors = part(vectors_total - vector, $wide);
                    let most = height(vectors);
                    for row in 0..job.rows {
                        let mut first = 0;
                        while first < job.run {
                            let rows = part(job.run - first, most);
                            // SAFETY: the caller's promise.
                            unsafe {
                                let x = job.x.as_ptr().add(row * job.row_step + first);
                                let dy = job.dy.as_ptr().add(vector * LANES);
                                let to = dw.add((row * job.run + first) * job.w_step + vector * LANES);
                                match (vectors, rows) {
                                    $($(($v, $m) => outer_tile::<$m, $v>(job, x, dy, to),)+)+
                                    _ => unreachable!("parts are at most as large as the largest tile"),
                                }
                            }
                            first += rows;
                        }
                    }
                    vector += vectors;
                }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn outer_tile<const M: usize, const V: usize>(
                job: &Outer<'_>,
                x: *const f32,
                dy: *const f32,
                to: *mut f32,
            ) {
                // SAFETY: indices follow the formula, which the caller has checked.
                unsafe {
                    let mut sums = [[$zero; V]; M];
                    for i in 0..M {
                        for v in 0..V {
                            sums[i][v] = $load(to.add(i * job.w_step + v * LANES));
                        }
                    }
                    let mut dy = dy;
                    for y in 0..job.height {
                        let mut x = x.add(y * job.step_y);
                        for _ in 0..job.width {
                            let mut slopes = [$zero; V];
                            for v in 0..V {
                                slopes[v] = $load(dy.add(v * LANES));
                            }
                            for i in 0..M {
                                let value = $splat(*x.add(i));
                                for v in 0..V {
                                    sums[i][v] = $fma(value, slopes[v], sums[i][v]);
                                }
                            }
                            x = x.wrapping_add(job.step_x);
                            dy = dy.wrapping_add(job.columns);
                        }
                    }
                    for i in 0..M {
                        for v in 0..V {
                            $store(to.add(i * job.w_step + v * LANES), sums[i][v]);
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
build!(
    avx512, 16, __m512, wide: 4, tiles: [1 x [1, 2, 3, 4, 5, 6, 7, 8], 2 x [1, 2, 3, 4, 5, 6, 7, 8], 3 x [1, 2, 3, 4, 5, 6, 7, 8],
        4 x [1, 2, 3, 4, 5, 6]],
    feature: "avx512f",
    zero: _mm512_setzero_ps(),
    load: _mm512_loadu_ps,
    store: _mm512_storeu_ps,
    splat: _mm512_set1_ps,
    fma: _mm512_fmadd_ps,
);

#[cfg(target_arch = "x86_64")]
build!(
    avx2, 8, __m256, wide: 3, tiles: [1 x [1, 2, 3, 4, 5, 6], 2 x [1, 2, 3, 4, 5, 6], 3 x [1, 2, 3, 4]],
    feature: "avx2,fma",
    zero: _mm256_setzero_ps(),
    load: _mm256_loadu_ps,
    store: _mm256_storeu_ps,
    splat: _mm256_set1_ps,
    fma: _mm256_fmadd_ps,
);

build!(
    portable, 8, [f32; 8], wide: 2, tiles: [1 x [1, 2, 3, 4], 2 x [1, 2, 3, 4]],
    zero: [0f32; 8],
    load: |from: *const f32| from.cast::<[f32; 8]>().read_unaligned(),
    store: |to: *mut f32, values: [f32; 8]| to.cast::<[f32; 8]>().write_unaligned(values),
    splat: |value: f32| [value; 8],
    fma: |a: [f32; 8], b: [f32; 8], c: [f32; 8]| -> [f32; 8] { std::array::from_fn(|i| a[i] * b[i] + c[i]) },
);

/// A build that this processor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Build(Kind);

/// Private, so that only [`Build::available`] makes those that need features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Build {
    /// The builds that this processor runs, the widest first. The standard library remembers what it found.
    pub(crate) fn available() -> Vec<Self> {
        let mut builds = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
            if avx2 && std::arch::is_x86_feature_detected!("avx512f") {
                builds.push(Self(Kind::Avx512));
            }
            if avx2 {
                builds.push(Self(Kind::Avx2));
            }
        }
        builds.push(Self(Kind::Portable));
        builds
    }

    /// Whether the processor has AVX2 and fused multiplication: every build but the portable one asks for them.
    pub(crate) fn wide(self) -> bool {
        self.0 != Kind::Portable
    }

    /// Computes `job` into `dst`.
    ///
    /// # Panics
    /// If an index lies outside its slice.
    #[allow(unsafe_code, reason = "the kernels' promises are checked here")]
    pub(crate) fn product(self, job: &Product<'_>, dst: &mut [f32]) {
        if job.bases.is_empty() || job.columns == 0 {
            return;
        }
        assert_eq!(job.bases.len(), job.targets.len(), "a target for each position");
        assert!(job.group > 0 && job.rows > 0 && job.run > 0, "sums of something");
        let (base, target) = (max(job.bases), max(job.targets));
        assert!(within(&[(job.rows - 1, job.row_step), (1, base), (1, job.run)], job.x), "positions lie within x");
        assert!(job.w_step.is_multiple_of(PAD) && job.w_step >= job.columns, "rows of w are padded");
        assert!(within(&[(job.rows * job.run, job.w_step)], job.w), "w has a row for each value of a run");
        assert!(within(&[(1, target), (1, job.columns)], dst), "targets lie within dst");
        assert!(job.start.is_none_or(|start| start.len() >= job.w_step), "a padded bias");
        // SAFETY: the assertions above bound every index of the formula: positions by their largest, rows and columns by their
        // number, and whole vectors of `w` and `start` by their padding. The features were found by `available`, the only
        // place that gives a build with features.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => avx512::product(job, dst),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => avx2::product(job, dst),
                Kind::Portable => portable::product(job, dst),
            }
        }
    }

    /// Adds `job` to `dw`.
    ///
    /// # Panics
    /// If an index lies outside its slice.
    #[allow(unsafe_code, reason = "the kernels' promises are checked here")]
    pub(crate) fn outer(self, job: &Outer<'_>, dw: &mut [f32]) {
        if job.height == 0 || job.width == 0 || job.columns == 0 {
            return;
        }
        assert!(job.rows > 0 && job.run > 0, "weights to sum for");
        let last =
            [(job.rows - 1, job.row_step), (job.height - 1, job.step_y), (job.width - 1, job.step_x), (1, job.run)];
        assert!(within(&last, job.x), "positions lie within x");
        let padded = job.columns.next_multiple_of(PAD);
        assert!(within(&[(job.height * job.width - 1, job.columns), (1, padded)], job.dy), "dy is padded at its end");
        assert!(job.w_step.is_multiple_of(PAD) && job.w_step >= job.columns, "rows of dw are padded");
        assert!(within(&[(job.rows * job.run, job.w_step)], dw), "dw has a row for each value of a run");
        // SAFETY: as in `product`: the assertions bound every index, `padded` the last vector of `dy`.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => avx512::outer(job, dw),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => avx2::outer(job, dw),
                Kind::Portable => portable::outer(job, dw),
            }
        }
    }
}

fn max(values: &[usize]) -> usize {
    values.iter().copied().fold(0, usize::max)
}

/// Whether the sum of the products is at most the length of `slice`.
fn within(terms: &[(usize, usize)], slice: &[f32]) -> bool {
    let sum = terms.iter().try_fold(0usize, |sum, (a, b)| sum.checked_add(a.checked_mul(*b)?));
    sum.is_some_and(|sum| sum <= slice.len())
}
