using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using Dwf;

/// <summary>
/// The cases of cases.json; the README beside it says what its fields mean.
/// </summary>
internal sealed class Conformance
{
    private readonly Json options;
    private readonly Json buffer;
    private readonly Json expect;
    private readonly string op;
    private readonly string artifact;
    private readonly ulong? cancelAt;

    private Conformance(Json item)
    {
        op = item.Element("op").Value;
        artifact = item.Element("artifact").Value;
        var at = item.Element("cancel_at");
        cancelAt = at == null ? (ulong?)null : (ulong)at;
        options = item.Element("options") ?? Json.Nothing;
        buffer = item.Element("buffer") ?? Json.Nothing;
        expect = item.Element("expect");
    }

    internal static void RunAll(Action<string, Action> run)
    {
        var cases = Json.Read(Path.Combine(Program.Folder, "cases.json")).Element("cases");
        var lines = new StringBuilder();
        foreach (var item in cases.Elements)
        {
            string name = item.Element("name").Value;
            run(name, () =>
            {
                new Conformance(item).Run(out string status, out string sha256);
                lines.Append($"{{\"name\":\"{name}\",\"status\":\"{status}\",");
                lines.Append($"\"sha256\":\"{sha256}\"}}\n");
            });
        }
        var path = Environment.GetEnvironmentVariable("DWF_CONFORMANCE_OUT");
        if (!string.IsNullOrEmpty(path))
            File.WriteAllText(path, lines.ToString());
    }

    private void Run(out string status, out string sha256)
    {
        string hash = "";
        status = StatusOf(() =>
        {
            using (var model = Model.Open(Path.Combine(Program.Folder, artifact)))
                Run(model, out hash);
        });
        sha256 = hash;
        Check.Same(status, expect.Element("status").Value, "status");
    }

    private void Run(Model model, out string hash)
    {
        hash = "";
        switch (op)
        {
            case "open":
                break;
            case "info":
                CheckInfo(model.Info);
                break;
            case "tensors":
                CheckTensors(model.Tensors);
                break;
            case "sample":
            case "cancel":
            case "busy":
                Sample(model, out hash);
                break;
            default:
                throw new Exception($"unknown op '{op}'");
        }
    }

    /// <summary>The status that `action` ends with; its error says what is expected.</summary>
    private string StatusOf(Action action)
    {
        var status = Status.Ok;
        string message = "";
        try
        {
            action();
        }
        catch (DwfException e)
        {
            status = e.Status;
            message = e.Message;
        }
        catch (OperationCanceledException e)
        {
            status = Status.Cancelled;
            message = e.Message;
        }
        string part = expect.Element("error_contains")?.Value ?? "";
        Check.True(status == Status.Ok || message.Contains(part), $"'{message}' lacks '{part}'");
        return NameInC(status);
    }

    private static string NameInC(Status status)
    {
        var name = new StringBuilder("DWF");
        foreach (char c in status.ToString())
            name.Append(char.IsUpper(c) ? "_" : "").Append(char.ToUpperInvariant(c));
        return name.ToString();
    }

    private void Sample(Model model, out string hash)
    {
        var settings = new SamplerOptions { Threads = 1, MaxBatch = 4 };
        using (var sampler = model.CreateSampler(settings))
        {
            var output = new Output(model, SampleOptions(), buffer);
            var nested = new Output(model, SampleOptions(), buffer);
            try
            {
                Sample(sampler, output, nested);
            }
            finally
            {
                hash = output.Hash();
            }
            CheckValues(output);
        }
    }

    private void Sample(Sampler sampler, Output output, Output nested)
    {
        int calls = 0;
        string nestedStatus = null;
        var source = new CancellationTokenSource();
        var sampling = SampleOptions();
        if (op != "sample")
            sampling.Progress = (done, total) =>
            {
                calls++;
                Check.Same(total, (long)(int)expect.Element("total"), "total");
                if (cancelAt == (ulong)done)
                    source.Cancel();
                if (op == "busy" && done == 0)
                    nestedStatus = StatusOf(() => nested.Sample(sampler, SampleOptions(), default));
            };
        try
        {
            output.Sample(sampler, sampling, source.Token);
        }
        finally
        {
            Check.Same(calls, expect.Whole("calls", 0), "calls");
            Check.Same(nestedStatus, expect.Element("nested_status")?.Value, "nested status");
        }
    }

    private SampleOptions SampleOptions() => new SampleOptions
    {
        Seed = options.Unsigned("seed", 0),
        FirstIndex = options.Unsigned("first_index", 0),
        Count = options.Whole("count", 1),
        RowStride = buffer.Whole("row_stride", 0),
        Solver = (Solver)options.Whole("solver", 0),
        Grid = (Grid)options.Whole("grid", 0),
        Steps = options.Whole("steps", 0),
        Tolerance = options.Real("tolerance", 0),
        Condition = options.Element("condition")?.Elements.Select(x => (float)(double)x).ToArray(),
        Guidance = options.Real("guidance", 0),
    };

    private void CheckValues(Output output)
    {
        double tolerance = expect.Real("tolerance", 1e-4);
        foreach (var value in (expect.Element("values") ?? Json.Nothing).Elements)
        {
            var place = value.Name.Split(',');
            double got = output.At(Number(place[0]), Number(place[1])), want = (double)value;
            Check.True(Math.Abs(got - want) <= tolerance * Math.Max(1, Math.Abs(want)),
                $"value {value.Name} is {got}, expected {want}");
        }
    }

    private static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);

    private void CheckInfo(ModelInfo info)
    {
        var got = new Dictionary<string, object>
        {
            ["weight_count"] = info.WeightCount,
            ["tensor_count"] = info.TensorCount,
            ["latent_size"] = info.LatentSize,
            ["condition_size"] = info.ConditionSize,
            ["steps"] = info.Steps,
            ["evaluations"] = info.Evaluations,
            ["solver_error"] = double.IsNaN(info.SolverError) ? null : (object)info.SolverError,
            ["source_std"] = info.SourceStd,
            ["solver"] = (uint)info.Solver,
            ["grid"] = (uint)info.Grid,
            ["basis"] = (uint)info.Basis,
            ["unconditional"] = info.Unconditional ? 1 : 0,
            ["quality"] = info.Quality,
            ["provenance"] = info.Provenance,
            ["condition"] = info.Condition,
        };
        var expected = expect.Element("info");
        var names = expected.Element("condition_names");
        var min = expected.Element("condition_min");
        var max = expected.Element("condition_max");
        // What is NULL in C is empty here.
        Check.SameList(info.ConditionNames, names.Elements.Select(name => name.Value), "names");
        Check.SameList(info.ConditionMin, min.Elements.Select(x => (float)(double)x), "min");
        Check.SameList(info.ConditionMax, max.Elements.Select(x => (float)(double)x), "max");
        CheckFields(got, expected.Elements.Except(new[] { names, min, max }));
    }

    private void CheckTensors(IReadOnlyList<TensorInfo> tensors)
    {
        var expected = expect.Element("tensors").Elements.ToArray();
        Check.Same(tensors.Count, expected.Length, "tensors");
        for (int i = 0; i < expected.Length; i++)
        {
            var tensor = tensors[i];
            var shape = expected[i].Element("shape");
            Check.SameList(tensor.Shape, shape.Elements.Select(dim => (int)dim), "shape");
            var got = new Dictionary<string, object>
            {
                ["name"] = tensor.Name,
                ["offset"] = tensor.Offset,
                ["count"] = tensor.Count,
                ["dtype"] = (uint)tensor.DType,
                ["kind"] = (uint)tensor.Kind,
            };
            CheckFields(got, expected[i].Elements.Where(field => field != shape));
        }
    }

    private static void CheckFields(Dictionary<string, object> got, IEnumerable<Json> expected)
    {
        Check.SameList(got.Keys, expected.Select(field => field.Name), "fields");
        foreach (var field in expected)
        {
            object value = got[field.Name];
            if (field.Value == null)
                Check.True(value == null, $"{field.Name} is {value}, expected null");
            else if (value is string)
                Check.Same((string)value, field.Value, field.Name);
            else
                Check.Same(Convert.ToDouble(value), (double)field, field.Name);
        }
    }
}

/// <summary>Memory as a case describes it; every byte is 0x55 at first.</summary>
internal sealed class Output
{
    private readonly DType dtype;
    private readonly int stride;
    private readonly IReadOnlyList<TensorInfo> tensors;
    private readonly float[] floats;
    private readonly ushort[] halves;
    private readonly float[][][] floatTensors;
    private readonly ushort[][][] halfTensors;

    internal Output(Model model, SampleOptions options, Json buffer)
    {
        dtype = ParseDType(buffer.Element("dtype")?.Value ?? "f32");
        bool half = dtype != DType.F32;
        tensors = model.Tensors;
        stride = options.RowStride == 0 ? model.Info.WeightCount : options.RowStride;
        if (buffer.Element("scatter")?.Value == "true")
        {
            if (half)
                halfTensors = Networks(options.Count, n => Filled<ushort>(n));
            else
                floatTensors = Networks(options.Count, n => Filled<float>(n));
            return;
        }
        int bytes = half ? sizeof(ushort) : sizeof(float);
        int needed = (options.Count - 1) * stride + model.Info.WeightCount;
        int size = buffer.Whole("size_bytes", needed * bytes) / bytes;
        if (half)
            halves = Filled<ushort>(size);
        else
            floats = Filled<float>(size);
    }

    internal void Sample(Sampler sampler, SampleOptions options, CancellationToken token)
    {
        if (floats != null)
            sampler.Sample(floats, options, token);
        else if (halves != null)
            sampler.Sample(halves, dtype, options, token);
        else if (floatTensors != null)
            sampler.Sample(floatTensors, options, token);
        else
            sampler.Sample(halfTensors, dtype, options, token);
    }

    internal double At(int row, int column)
    {
        if (floats != null)
            return floats[row * stride + column];
        if (halves != null)
            return ToDouble(halves[row * stride + column]);
        int j = 0;
        while (column >= tensors[j].Offset + tensors[j].Count)
            j++;
        int at = column - tensors[j].Offset;
        return floatTensors != null ? floatTensors[row][j][at] : ToDouble(halfTensors[row][j][at]);
    }

    internal string Hash()
    {
        var bytes = new List<byte>(Bytes(floats));
        bytes.AddRange(Bytes(halves));
        foreach (var tensor in (floatTensors ?? new float[0][][]).SelectMany(n => n))
            bytes.AddRange(Bytes(tensor));
        foreach (var tensor in (halfTensors ?? new ushort[0][][]).SelectMany(n => n))
            bytes.AddRange(Bytes(tensor));
        return Sha256.Of(bytes);
    }

    private static DType ParseDType(string name)
    {
        switch (name)
        {
            case "f32":
                return DType.F32;
            case "f16":
                return DType.F16;
            case "bf16":
                return DType.BF16;
            default:
                throw new Exception($"unknown dtype '{name}'");
        }
    }

    private T[][][] Networks<T>(int count, Func<int, T[]> make) =>
        Enumerable.Range(0, count)
            .Select(i => tensors.Select(tensor => make(tensor.Count)).ToArray())
            .ToArray();

    private static T[] Filled<T>(int size) where T : struct
    {
        var array = new T[size];
        MemoryMarshal.AsBytes(array.AsSpan()).Fill(0x55);
        return array;
    }

    private static byte[] Bytes<T>(T[] array) where T : struct =>
        MemoryMarshal.AsBytes(array.AsSpan()).ToArray();

    private double ToDouble(ushort half)
    {
        if (dtype == DType.BF16)
            return BitConverter.Int32BitsToSingle(half << 16);
        int exponent = half >> 10 & 31;
        double fraction = (half & 1023) / 1024.0;
        if (exponent == 31)
            return double.NaN; // or infinite: no case expects either
        double value = exponent == 0
            ? fraction * Math.Pow(2, -14)
            : (1 + fraction) * Math.Pow(2, exponent - 15);
        return half >> 15 != 0 ? -value : value;
    }
}
