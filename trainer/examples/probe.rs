use dwf_trainer::{align, flow, iris, latent::Basis, random::Random};
use std::time::Instant;
fn main() {
    let arg = |i: usize, d: usize| std::env::args().nth(i).map_or(d, |a| a.parse().unwrap());
    let (seed, steps, width) = (arg(1, 0) as u64, arg(2, 4000), arg(3, 320));
    let t = Instant::now();
    let mut z = iris::zoo(100, 0, || ());
    println!("zoo {:?}", t.elapsed());
    let d = z.zoo.layout.len();
    let mlp = z.zoo.mlp.clone();
    let acc = |w: &[f32]| w.chunks_exact(d).map(|n| z.held_out.accuracy(&mlp, n)).collect::<Vec<_>>();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let t = Instant::now();
    align::align(&mut z.zoo.weights, d, &mlp, 0, || ());
    println!("align {:?}", t.elapsed());
    let za = acc(&z.zoo.weights);
    println!("zoo accuracy {:.4} min {:.4}", mean(&za), za.iter().cloned().fold(1.0, f64::min));
    let w = z.zoo.weights.clone();
    let (train, held) = w.split_at(90 * d);
    let basis = Basis::diagonal(train, d);
    let enc = |w: &[f32]| w.chunks_exact(d).flat_map(|n| basis.encode(n)).collect::<Vec<f32>>();
    let (lt, lh) = (enc(train), enc(held));
    let Basis::Diagonal { mean: m, scale } = &basis else { panic!() };
    println!("mean net accuracy {:.4}", mean(&acc(m)));
    // independent gaussian
    let mut r = Random::new(7, 7);
    let mut g = vec![0f32; 100 * d];
    r.fill_normal(&mut g);
    let dec = |z: &[f32]| z.chunks_exact(d).flat_map(|z| z.iter().zip(m).zip(scale).map(|((z, m), s)| m + s * z).collect::<Vec<_>>()).collect::<Vec<f32>>();
    let ga = acc(&dec(&g));
    println!("independent gaussian accuracy {:.4}", mean(&ga));
    let report = |name: &str, w: &[f32]| {
        let a = acc(w);
        let mut ratios: Vec<f64> = (0..d).map(|j| {
            let sd = |w: &[f32]| { let v: Vec<f64> = w.chunks_exact(d).map(|n| n[j] as f64).collect(); let mm = mean(&v); (v.iter().map(|x| (x - mm).powi(2)).sum::<f64>() / v.len() as f64).sqrt() };
            sd(w) / sd(&z.zoo.weights)
        }).collect();
        ratios.sort_by(f64::total_cmp);
        let dist = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| ((a - b) as f64).powi(2)).sum::<f64>().sqrt();
        let mut zn: Vec<f64> = z.zoo.weights.chunks_exact(d).enumerate().map(|(i, a)| z.zoo.weights.chunks_exact(d).enumerate().filter(|(j, _)| *j != i).map(|(_, b)| dist(a, b)).fold(f64::INFINITY, f64::min)).collect();
        zn.sort_by(f64::total_cmp);
        let mut gn: Vec<f64> = w.chunks_exact(d).map(|a| z.zoo.weights.chunks_exact(d).map(|b| dist(a, b)).fold(f64::INFINITY, f64::min)).collect();
        gn.sort_by(f64::total_cmp);
        println!("{name}: acc {:.4} min {:.3} ratio {:.3} | nn zoo {:.3} gen min {:.3} median {:.3}", mean(&a), a.iter().cloned().fold(1.0, f64::min), ratios[d / 2], zn[50], gn[0], gn[50]);
    };
    report("gauss", &dec(&g));
    let t = Instant::now();
    let sample = |v: &dwf_trainer::velocity::Velocity| {
        let mut x = g.clone();
        let n = 32;
        for i in 0..n {
            let (h, t0) = (1.0 / n as f32, i as f32 / n as f32);
            let at = |x: &[f32], t: f32| v.evaluate(x, &vec![t; 100]);
            let k1 = at(&x, t0);
            let mid: Vec<f32> = x.iter().zip(&k1).map(|(x, k)| x + 0.5 * h * k).collect();
            let k2 = at(&mid, t0 + 0.5 * h);
            x.iter_mut().zip(&k2).for_each(|(x, k)| *x += h * k);
        }
        dec(&x)
    };
    let f = flow::train(&lt, &lh, d, &flow::FlowOptions { seed, steps, width }, |p| {
        if p.step % (steps / 10) == 0 { println!("{} {:.4} {:.4} {:?}", p.step, p.loss, p.held_out_loss, t.elapsed()); }
    });
    println!("best {} {:.4}", f.step, f.held_out_loss);
    report("flow", &sample(&f.velocity));
}
