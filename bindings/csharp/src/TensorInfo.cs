using System;
using System.Collections.Generic;

namespace Dwf
{
    /// <summary>One tensor of the target network.</summary>
    public sealed class TensorInfo
    {
        /// <summary>Name as in the checkpoint, "fc1.weight" say.</summary>
        public string Name { get; }

        /// <summary>Row-major shape; empty for a scalar.</summary>
        public IReadOnlyList<int> Shape { get; }

        /// <summary>First element in the flat vector.</summary>
        public int Offset { get; }

        /// <summary>Number of elements.</summary>
        public int Count { get; }

        /// <summary>Element type in the checkpoint; output has the type it is asked for.</summary>
        public DType DType { get; }

        /// <summary>Parameter or buffer.</summary>
        public TensorKind Kind { get; }

        internal unsafe TensorInfo(in Native.dwf_tensor_info info)
        {
            var shape = new int[info.rank];
            for (int i = 0; i < shape.Length; i++)
                shape[i] = checked((int)info.shape[i]);
            Name = Native.Text(info.name);
            Shape = Array.AsReadOnly(shape);
            Offset = checked((int)info.offset);
            Count = checked((int)info.count);
            DType = info.dtype;
            Kind = info.kind;
        }

        /// <summary>The tensor's part of a network's flat vector, not a copy.</summary>
        public Span<float> View(Span<float> network) => network.Slice(Offset, Count);

        /// <summary>The tensor's part of a half-precision network, not a copy.</summary>
        public Span<ushort> View(Span<ushort> network) => network.Slice(Offset, Count);
    }
}
