using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;
using Dwf;

/// <summary>What the binding itself promises; values are for <see cref="Conformance"/>.</summary>
internal static class BindingTests
{
    private static string Tiny => Path.Combine(Program.Folder, "tiny.onnx");

    private static Sampler NewSampler(Model model) =>
        model.CreateSampler(new SamplerOptions { Threads = 1, MaxBatch = 4 });

    private static float[] Sample(Sampler sampler, Model model, SampleOptions options)
    {
        var weights = new float[options.Count * model.Info.WeightCount];
        sampler.Sample(weights, options);
        return weights;
    }

    public static void StructsAndEnumsAreThoseOfTheHeader()
    {
        var here = new List<string>();
        var assembly = typeof(Model).Assembly;
        foreach (var type in assembly.GetType("Dwf.Native").GetNestedTypes(BindingFlags.NonPublic))
        {
            if (!type.IsValueType)
                continue;
            here.Add($"{type.Name} {Marshal.SizeOf(type)}");
            foreach (var field in type.GetFields())
                here.Add($"{type.Name}.{field.Name} {Marshal.OffsetOf(type, field.Name)}");
        }
        foreach (var type in assembly.GetExportedTypes())
            if (type.IsEnum && type != typeof(OpenOptions))
                foreach (var value in Enum.GetValues(type))
                    here.Add($"{type.Name}.{value} {Convert.ToInt64(value)}");
        Check.SameList(here.OrderBy(x => x, StringComparer.Ordinal),
            File.ReadAllLines(Program.Layout).OrderBy(x => x, StringComparer.Ordinal), "layout");
    }

    public static void InfoOfTheSampler()
    {
        using (var model = Model.Open(Tiny))
        using (var sampler = NewSampler(model))
        {
            Check.Same(sampler.Info.Threads, 1, "Threads");
            Check.Same(sampler.Info.MaxBatch, 4, "MaxBatch");
            Check.Same(sampler.Info.WeightCount, 148, "WeightCount");
            Check.Same(sampler.Info.TensorCount, 6, "TensorCount");
            Check.Same(sampler.Info.ConditionSize, 0, "ConditionSize");
            Check.Same(sampler.Info.Device, Device.Cpu, "Device");
            Check.True(sampler.Info.WorkspaceBytes > 0, "no workspace");
            Check.True(sampler.Info.OnnxRuntimeVersion.StartsWith("1."), "no version");
            Check.True(File.Exists(sampler.Info.OnnxRuntimePath), "no path");
            Check.True(Library.Version.Contains("."), "no version of libdwf");
        }
    }

    public static void AViewIsThePartOfTheNetwork()
    {
        using (var model = Model.Open(Tiny))
        using (var sampler = NewSampler(model))
        {
            var network = Sample(sampler, model, new SampleOptions { Seed = 3 });
            var bias = model.Tensor("fc2.bias");
            var view = bias.View(network);
            Check.Same(view.Length, 3, "Length");
            view[0] = 42;
            Check.Same(network[bias.Offset], 42f, "written through the view");
            Check.Throws<KeyNotFoundException>(() => model.Tensor("fc3.bias"));
        }
    }

    public static void BytesAreCopied()
    {
        var onnx = File.ReadAllBytes(Tiny);
        var file = File.ReadAllBytes(Path.ChangeExtension(Tiny, "safetensors"));
        // One byte in: libdwf must not depend on how a span is aligned.
        var sidecar = new byte[file.Length + 1];
        file.CopyTo(sidecar, 1);
        using (var model = Model.Open(onnx, sidecar.AsSpan(1), OpenOptions.Verify))
        using (var fromFiles = Model.Open(Tiny))
        {
            Array.Clear(onnx, 0, onnx.Length);
            Array.Clear(sidecar, 0, sidecar.Length);
            var options = new SampleOptions { Seed = 3, Count = 5 };
            using (var sampler = NewSampler(model))
            using (var expected = NewSampler(fromFiles))
                Check.True(
                    Sample(sampler, model, options)
                        .SequenceEqual(Sample(expected, fromFiles, options)),
                    "differs from the artifact in files");
        }
        Check.Fails(Status.InvalidArgument, () => Model.Open(default, default(ReadOnlySpan<byte>)));
    }

    public static void VerifyFindsDamage()
    {
        InFolder(folder =>
        {
            var onnx = Path.Combine(folder, "tiny.onnx");
            var sidecar = Path.ChangeExtension(onnx, "safetensors");
            var bytes = File.ReadAllBytes(sidecar);
            bytes[bytes.Length - 1] ^= 1;
            File.WriteAllBytes(sidecar, bytes);
            Model.Open(onnx, OpenOptions.Copy).Dispose();
            Check.Fails(Status.BadArtifact,
                () => Model.Open(onnx, OpenOptions.Copy | OpenOptions.Verify));
            Check.Fails(Status.OutOfMemory, () => Model.Open(onnx, OpenOptions.Copy, 100));
            Check.Throws<ArgumentOutOfRangeException>(
                () => Model.Open(onnx, OpenOptions.Copy, -1));
        });
    }

    public static void ArgumentsOfTheBinding()
    {
        Check.Throws<ArgumentNullException>(() => Model.Open(null));
        Check.Throws<ArgumentException>(() => Model.Open("tiny\0.onnx"));
        Check.Fails(Status.Io, () => Model.Open(""));
        using (var model = Model.Open(Path.Combine(Program.Folder, "conditional.onnx")))
        {
            Check.Throws<ArgumentOutOfRangeException>(
                () => model.CreateSampler(new SamplerOptions { Threads = -1 }));
            Check.Throws<ArgumentException>(
                () => model.CreateSampler(new SamplerOptions { OnnxRuntime = "a\0b" }));
            using (var sampler = NewSampler(model))
            {
                ArgumentsOfRows(sampler, model);
                ArgumentsOfTensors(sampler, model);
            }
        }
    }

    private static void ArgumentsOfRows(Sampler sampler, Model model)
    {
        var room = new float[2 * model.Info.WeightCount];
        foreach (var options in new[]
        {
            new SampleOptions { Count = 0 },
            new SampleOptions { Count = -1 },
            new SampleOptions { Steps = -1 },
            new SampleOptions { RowStride = -1 },
            new SampleOptions { Condition = new float[] { 1, 0 } },
        })
            Check.Throws<ArgumentException>(() => sampler.Sample(room, options));
        Check.Throws<ArgumentException>(() => sampler.Sample(new ushort[1], DType.F32));
        Check.Fails(Status.InvalidArgument, () => sampler.Sample(default(Span<float>)));
    }

    private static void ArgumentsOfTensors(Sampler sampler, Model model)
    {
        var network = model.Tensors.Select(tensor => new float[tensor.Count]).ToArray();
        var two = new SampleOptions { Count = 2 };
        Check.Throws<ArgumentNullException>(() => sampler.Sample((float[][][])null));
        Check.Throws<ArgumentException>(() => sampler.Sample(new[] { network }, two));
        foreach (var bad in new[]
        {
            null,
            network.Skip(1).ToArray(),
            network.Skip(1).Prepend(null).ToArray(),
        })
            Check.Throws<ArgumentException>(() => sampler.Sample(new[] { network, bad }, two));
        var tooShort = network.Skip(1).Prepend(new float[network[0].Length - 1]).ToArray();
        Check.Fails(Status.BufferTooSmall, () => sampler.Sample(new[] { network, tooShort }, two));
        sampler.Sample(new[] { network, network }, two);
    }

    public static void ATokenEndsALongCall()
    {
        using (var model = Model.Open(Tiny))
        using (var sampler = NewSampler(model))
        using (var source = new CancellationTokenSource(20))
        {
            var room = new float[model.Info.WeightCount];
            var clock = Stopwatch.StartNew();
            // Alone these steps take many seconds.
            var options = new SampleOptions { Steps = 100000 };
            var e = Check.Throws<OperationCanceledException>(
                () => sampler.Sample(room, options, source.Token));
            Check.True(clock.ElapsedMilliseconds < 1000, $"took {clock.Elapsed}");
            Check.Same(e.CancellationToken, source.Token);
            Sample(sampler, model, new SampleOptions()); // And the sampler goes on.
        }
    }

    public static void ACancelledTokenLeavesTheMemoryAlone()
    {
        using (var model = Model.Open(Tiny))
        using (var sampler = NewSampler(model))
        {
            var room = new float[model.Info.WeightCount];
            var token = new CancellationToken(true);
            var e = Check.Throws<OperationCanceledException>(
                () => sampler.Sample(room, null, token));
            Check.Same(e.CancellationToken, token);
            Check.True(room.All(weight => weight == 0), "written to");
        }
    }

    public static void AnExceptionInProgressReachesTheCaller()
    {
        using (var model = Model.Open(Tiny))
        using (var sampler = NewSampler(model))
        {
            var room = new float[model.Info.WeightCount];
            var options = new SampleOptions
            {
                Progress = (done, total) =>
                {
                    if (done == 3)
                        throw new InvalidOperationException("enough");
                },
            };
            var e = Check.Throws<InvalidOperationException>(() => sampler.Sample(room, options));
            Check.Same(e.Message, "enough");
            Sample(sampler, model, new SampleOptions());
        }
    }

    public static void DisposeInAnyOrder()
    {
        var model = Model.Open(Tiny);
        var sampler = NewSampler(model);
        var expected = Sample(sampler, model, new SampleOptions { Seed = 3 });
        model.Dispose();
        model.Dispose();
        Check.Throws<ObjectDisposedException>(() => model.CreateSampler());
        var got = Sample(sampler, model, new SampleOptions
        {
            Seed = 3,
            Progress = (done, total) => sampler.Dispose(),
        });
        Check.True(got.SequenceEqual(expected), "disposing in use changed the weights");
        Check.Throws<ObjectDisposedException>(() => sampler.Sample(got));
    }

    /// <summary>
    /// Nothing but the call itself refers to model and sampler while the collector runs in it.
    /// </summary>
    public static void TheCollectorDuringCalls()
    {
        float[] expected;
        using (var model = Model.Open(Tiny))
        using (var sampler = NewSampler(model))
            expected = Sample(sampler, model, new SampleOptions { Seed = 7, Count = 3 });
        var wrong = new List<string>();
        var threads = Enumerable.Range(0, 4).Select(i => new Thread(() =>
        {
            for (int round = 0; round < 5; round++)
            {
                var got = new float[expected.Length];
                Forgotten().Sample(got, new SampleOptions
                {
                    Seed = 7,
                    Count = 3,
                    Progress = (done, total) => Collect(),
                });
                if (!got.SequenceEqual(expected))
                    lock (wrong)
                        wrong.Add($"thread {i}, round {round}");
            }
        })).ToList();
        threads.ForEach(thread => thread.Start());
        threads.ForEach(thread => thread.Join());
        Check.True(wrong.Count == 0, string.Join("; ", wrong));
    }

    /// <summary>Young arrays move when they are collected, unless they are pinned.</summary>
    public static void TheCollectorMovesNothingInUse()
    {
        using (var model = Model.Open(Tiny))
        using (var sampler = NewSampler(model))
        {
            var expected = Sample(sampler, model, new SampleOptions { Seed = 3 });
            var options = new SampleOptions { Seed = 3, Progress = (done, total) => Collect() };
            Check.True(Sample(sampler, model, options).SequenceEqual(expected), "rows moved");
            var network = model.Tensors.Select(tensor => new float[tensor.Count]).ToArray();
            sampler.Sample(new[] { network }, options);
            Check.True(network.SelectMany(x => x).SequenceEqual(expected), "tensors moved");
        }
    }

    public static void TheCollectorFrees()
    {
        InFolder(folder =>
        {
            const int Models = 20;
            var thread = new Thread(() =>
            {
                for (int i = 0; i < Models; i++)
                    Model.Open(Path.Combine(folder, "tiny.onnx"));
            });
            thread.Start();
            thread.Join();
            Collect();
            // The collector may take a stale word on a stack for a reference, to a few of them.
            int mapped = File.ReadAllLines("/proc/self/maps").Count(line => line.Contains(folder));
            Check.True(mapped < Models / 2, $"{mapped} of {Models} models are still mapped");
        });
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Sampler Forgotten() => NewSampler(Model.Open(Tiny));

    private static void Collect()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
    }

    public static void TheLog()
    {
        var messages = new List<string>();
        Library.SetLog((level, message) =>
        {
            messages.Add($"{level}: {message}");
            throw new Exception("nobody sees this");
        });
        try
        {
            using (var model = Model.Open(Tiny))
            {
                NewSampler(model).Dispose();
                Check.True(messages.Any(m => m.StartsWith("Info: ")), string.Join("; ", messages));
                Library.SetLog(null);
                messages.Clear();
                NewSampler(model).Dispose();
                Check.Same(messages.Count, 0, "messages after SetLog(null)");
            }
        }
        finally
        {
            Library.SetLog(null);
        }
    }

    /// <summary>The sink before it stays.</summary>
    public static void ALogLevelThatThereIsNot()
    {
        int messages = 0;
        Library.SetLog((level, message) => messages++);
        try
        {
            Check.Throws<ArgumentOutOfRangeException>(() => Library.SetLog((l, m) => { }, 0));
            using (var model = Model.Open(Tiny))
                NewSampler(model).Dispose();
            Check.True(messages > 0, "the sink before is gone");
        }
        finally
        {
            Library.SetLog(null);
        }
    }

#if !CORECLR // It has one domain.
    /// <summary>As Unity's editor does when it reloads scripts.</summary>
    public static void TheLogOfAnUnloadedDomain()
    {
        if (Program.AheadOfTime)
            return; // Mono compiles when it makes a domain, and IL2CPP has none.
        var domain = AppDomain.CreateDomain("reloaded");
        domain.DoCallBack(LogHere);
        AppDomain.Unload(domain);
        using (var model = Model.Open(Tiny))
            NewSampler(model).Dispose();
    }

    private static void LogHere() => Library.SetLog((level, message) => { }, LogLevel.Debug);
#endif

    private static void InFolder(Action<string> action)
    {
        var folder = Path.Combine(Path.GetTempPath(), "dwf-" + Guid.NewGuid());
        Directory.CreateDirectory(folder);
        try
        {
            foreach (var name in new[] { "tiny.onnx", "tiny.safetensors" })
                File.Copy(Path.Combine(Program.Folder, name), Path.Combine(folder, name));
            action(folder);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
