//! Pictures in shades of grey: how alike two are, and how they become PNG files.

use std::fmt;
use std::io::Write;

use flate2::Crc;
use flate2::write::ZlibEncoder;

/// What counts as recovered, in dB: noise of a tenth of the range, through which everybody recognises a picture.
pub const RECOVERED_DB: f64 = 20.0;

/// A square picture, from 0 (black) to 1 (white).
#[derive(Clone, PartialEq)]
pub struct Picture {
    side: usize,
    pixels: Vec<f64>,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({0} × {0})", self.side)
    }
}

/// Which of the true pictures a guess comes closest to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Its place among the true ones.
    pub truth: usize,
    /// The guess's place.
    pub guess: usize,
    /// How close, in dB.
    pub psnr_db: f64,
}

impl Picture {
    /// A picture of these pixels, cut to the range; what is no number is black.
    ///
    /// # Panics
    /// If there are not `side` × `side`.
    pub fn new(side: usize, pixels: impl IntoIterator<Item = f64>) -> Self {
        let cut = |value: f64| if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        let pixels: Vec<f64> = pixels.into_iter().map(cut).collect();
        assert_eq!(pixels.len(), side * side, "a square picture");
        Self { side, pixels }
    }

    /// Pixels along a side.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The pixels, row by row.
    pub fn pixels(&self) -> &[f64] {
        &self.pixels
    }

    /// The mean of all pixels.
    pub fn brightness(&self) -> f64 {
        self.pixels.iter().sum::<f64>() / self.pixels.len() as f64
    }

    /// The peak signal-to-noise ratio to `truth`: `−10 · log10` of the mean squared error, where the peak is 1. At most 99 dB.
    pub fn psnr_db(&self, truth: &Picture) -> f64 {
        let squares = self.pixels.iter().zip(&truth.pixels).map(|(a, b)| (a - b) * (a - b));
        let error = squares.sum::<f64>() / self.pixels.len() as f64;
        (-10.0 * libm::log10(error)).min(99.0)
    }
}

/// The mean of pictures: what anybody can draw who knows what kind of pictures they are.
///
/// # Panics
/// If there are none.
pub fn mean(pictures: &[Picture]) -> Picture {
    let side = pictures[0].side;
    let pixel = |index: usize| pictures.iter().map(|picture| picture.pixels[index]).sum::<f64>();
    Picture::new(side, (0..side * side).map(|index| pixel(index) / pictures.len() as f64))
}

/// For each true picture the guess that comes closest to it, which may be the same for several.
pub fn matches(truth: &[Picture], guesses: &[Picture]) -> Vec<Match> {
    let of = |(place, picture): (usize, &Picture)| {
        let each = guesses.iter().enumerate().map(|(guess, found)| Match {
            truth: place,
            guess,
            psnr_db: found.psnr_db(picture),
        });
        each.max_by(|a, b| a.psnr_db.total_cmp(&b.psnr_db))
    };
    truth.iter().enumerate().filter_map(of).collect()
}

/// Pictures in rows with a gap between them, as a PNG file; each pixel `zoom` × `zoom`.
///
/// # Panics
/// If there is no picture.
pub fn sheet(rows: &[Vec<Picture>], zoom: usize) -> Vec<u8> {
    let side = rows.iter().flatten().next().expect("a sheet shows something").side;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let step = (side + 1) * zoom;
    let (width, height) = (columns * step, rows.len() * step);
    // Grey and its opacity: gaps are see-through, on light pages and dark ones.
    let mut bytes = vec![0u8; width * height * 2];
    for (down, row) in rows.iter().enumerate() {
        for (across, picture) in row.iter().enumerate() {
            for y in 0..side * zoom {
                for x in 0..side * zoom {
                    let at = ((down * step + y) * width + across * step + x) * 2;
                    let value = picture.pixels[(y / zoom) * side + x / zoom];
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
                    let grey = (value * 255.0).round() as u8;
                    (bytes[at], bytes[at + 1]) = (grey, 255);
                }
            }
        }
    }
    png(width, height, &bytes)
}

/// A PNG file (RFC 2083) of grey pixels with opacity, 8 bits each.
fn png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(pixels.len() + height);
    for line in pixels.chunks(width * 2) {
        lines.push(0);
        lines.extend_from_slice(line);
    }
    let mut packed = ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&lines).expect("memory takes everything");
    let packed = packed.finish().expect("memory takes everything");
    let number = |value: usize| u32::try_from(value).expect("a small picture").to_be_bytes();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], body: &[u8]| {
        let mut sum = Crc::new();
        sum.update(kind);
        sum.update(body);
        file.extend_from_slice(&number(body.len()));
        file.extend_from_slice(kind);
        file.extend_from_slice(body);
        file.extend_from_slice(&sum.sum().to_be_bytes());
    };
    // 8 bits, grey with opacity, deflate, no filter method but the first, not interlaced.
    chunk(b"IHDR", &[&number(width)[..], &number(height), &[8, 4, 0, 0, 0]].concat());
    chunk(b"IDAT", &packed);
    chunk(b"IEND", &[]);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_range_is_twenty_decibels() {
        let truth = Picture::new(2, [0.0, 0.5, 0.5, 0.9]);
        let guess = Picture::new(2, [0.1, 0.4, 0.6, 0.8]);
        assert!((guess.psnr_db(&truth) - 20.0).abs() < 1e-9);
        assert_eq!(truth.psnr_db(&truth), 99.0);
    }

    #[test]
    fn each_true_picture_is_matched_with_the_guess_that_is_closest() {
        let flat = |value: f64| Picture::new(1, [value]);
        let found = matches(&[flat(0.0), flat(1.0)], &[flat(0.9), flat(0.4)]);
        assert_eq!(found.iter().map(|found| found.guess).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_sheet_is_a_png_whose_pixels_are_the_pictures() {
        use std::io::Read;
        let file = sheet(&[vec![Picture::new(1, [1.0]), Picture::new(1, [0.0])]], 1);
        assert_eq!(&file[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!(&file[16..24], &[0, 0, 0, 4, 0, 0, 0, 2], "4 wide with gaps, 2 high");
        let length = u32::from_be_bytes(file[33..37].try_into().expect("4 bytes"));
        let body = &file[41..41 + usize::try_from(length).expect("small")];
        let mut lines = Vec::new();
        flate2::read::ZlibDecoder::new(body).read_to_end(&mut lines).expect("zlib");
        assert_eq!(lines, [0, 255, 255, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
