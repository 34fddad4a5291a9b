//! Feature maps, channels last.

use rayon::prelude::*;

/// Images of a batch, height, width, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub images: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Shape {
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Elements of one image.
    pub fn image(self) -> usize {
        self.pixels() * self.channels
    }

    pub fn elements(self) -> usize {
        self.images * self.image()
    }

    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }

    pub fn dims(self) -> [usize; 4] {
        [self.images, self.height, self.width, self.channels]
    }
}

/// A feature map [images, height, width, channels], row-major.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    pub shape: Shape,
    pub data: &'a [f32],
}

impl<'a> Map<'a> {
    pub fn new(shape: Shape, data: &'a [f32]) -> Self {
        assert_eq!(shape.elements(), data.len());
        Self { shape, data }
    }

    /// The same pixels with `channels` channels: zeros added behind the last one, or the last ones left out.
    pub fn resized(&self, channels: usize) -> Vec<f32> {
        resize(self.data, self.shape.channels, channels)
    }

    /// Pixel (y, x) at (stride y + offset, stride x + offset) of an image of height × width, zeros in between.
    pub fn spread(&self, height: usize, width: usize, stride: usize, offset: usize) -> Vec<f32> {
        let Shape { images, height: h, width: w, channels } = self.shape;
        let mut out = vec![0.0; images * height * width * channels];
        let rows = out.par_chunks_exact_mut(width * channels);
        rows.enumerate().for_each(|(index, out)| {
            let (number, y) = (index / height, index % height);
            let Some(from) = y.checked_sub(offset).filter(|y| y % stride == 0 && y / stride < h) else {
                return;
            };
            let row =
                &self.data[number * self.shape.image() + from / stride * w * channels..][..w * channels];
            for (x, pixel) in row.chunks_exact(channels).enumerate() {
                if let Some(out) = out.get_mut((x * stride + offset) * channels..).filter(|o| !o.is_empty()) {
                    out[..channels].copy_from_slice(pixel);
                }
            }
        });
        out
    }
}

/// x ← x + a row of channels for each image.
pub fn add_rows(shape: Shape, rows: &[f32], x: &mut [f32]) {
    x.par_chunks_exact_mut(shape.image()).zip(rows.par_chunks_exact(shape.channels)).for_each(|(x, row)| {
        x.par_chunks_exact_mut(shape.channels).with_min_len(64).for_each(|x| {
            x.iter_mut().zip(row).for_each(|(x, r)| *x += r);
        });
    });
}

/// Rows of `from` elements to rows of `to`: cut, or filled with zeros.
pub fn resize(data: &[f32], from: usize, to: usize) -> Vec<f32> {
    let mut out = vec![0.0; data.len() / from * to];
    let kept = from.min(to);
    for (out, x) in out.chunks_exact_mut(to).zip(data.chunks_exact(from)) {
        out[..kept].copy_from_slice(&x[..kept]);
    }
    out
}
