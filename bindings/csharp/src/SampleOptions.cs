using System;

namespace Dwf
{
    /// <summary>What to generate. Zero and null mean default.</summary>
    public sealed class SampleOptions
    {
        /// <summary>Any number, 0 too; with the index it determines a network's noise.</summary>
        public ulong Seed { get; set; }

        /// <summary>Index of the first network.</summary>
        public ulong FirstIndex { get; set; }

        /// <summary>How many networks.</summary>
        public int Count { get; set; } = 1;

        /// <summary>
        /// Elements from one network's first weight to the next one's; 0: end to end.
        /// </summary>
        public int RowStride { get; set; }

        /// <summary>Integrates the flow.</summary>
        public Solver Solver { get; set; }

        /// <summary>Spaces the solver's steps.</summary>
        public Grid Grid { get; set; }

        /// <summary>Steps on the grid; 0: the artifact's.</summary>
        public long Steps { get; set; }

        /// <summary>
        /// Error a step of <see cref="Solver.Dopri5"/>, 1e-6 to 0.1; 0: the artifact's, or 1e-4.
        /// </summary>
        public double Tolerance { get; set; }

        /// <summary>
        /// One row of <see cref="ModelInfo.ConditionSize"/> numbers for all networks, or Count
        /// rows, one a network. Null: unconditional.
        /// </summary>
        public float[] Condition { get; set; }

        /// <summary>Classifier-free guidance scale; 0 or 1: the condition alone.</summary>
        public double Guidance { get; set; }

        /// <summary>
        /// Told how many of how many evaluations of the velocity network have begun, always on the
        /// calling thread: before each one that it makes and, while it waits for the sampler's
        /// other threads, whenever one of them has begun one. The second number is 0 where an
        /// adaptive solver finds out on the way. An exception ends the call and reaches its
        /// caller.
        /// </summary>
        public Action<long, long> Progress { get; set; }
    }
}
