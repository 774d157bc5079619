using System;
using System.Collections.Generic;

namespace Dwf
{
    /// <summary>What an artifact says about itself.</summary>
    public sealed class ModelInfo
    {
        /// <summary>Weights of one network: elements of its flat vector.</summary>
        public int WeightCount { get; }

        /// <summary>Tensors of one network.</summary>
        public int TensorCount { get; }

        /// <summary>Length of a latent vector.</summary>
        public int LatentSize { get; }

        /// <summary>Length of a condition vector; 0: the artifact takes none.</summary>
        public int ConditionSize { get; }

        /// <summary>Steps of the default solver.</summary>
        public long Steps { get; }

        /// <summary>
        /// Evaluations of the velocity network that the default solver needs; 0: each network's
        /// own.
        /// </summary>
        public long Evaluations { get; }

        /// <summary>
        /// Relative error of the default solver's weights against a fine solution; NaN: not
        /// measured.
        /// </summary>
        public double SolverError { get; }

        /// <summary>Standard deviation of the source noise.</summary>
        public double SourceStd { get; }

        /// <summary>Default solver.</summary>
        public Solver Solver { get; }

        /// <summary>Default grid.</summary>
        public Grid Grid { get; }

        /// <summary>Turns a latent vector into weights.</summary>
        public Basis Basis { get; }

        /// <summary>Can be sampled without condition, and so with guidance.</summary>
        public bool Unconditional { get; }

        /// <summary>JSON object of the trainer's figures by name.</summary>
        public string Quality { get; }

        /// <summary>JSON object: who made the artifact from what.</summary>
        public string Provenance { get; }

        /// <summary>
        /// JSON of the condition's classes or axes with their ranges; null without condition.
        /// </summary>
        public string Condition { get; }

        /// <summary>
        /// What a condition's columns are called: classes, or continuous axes. Empty without
        /// condition.
        /// </summary>
        public IReadOnlyList<string> ConditionNames { get; }

        /// <summary>
        /// Smallest value of every axis; empty for classes, whose row is one-hot.
        /// </summary>
        public IReadOnlyList<float> ConditionMin { get; }

        /// <summary>Largest value of every axis; empty for classes.</summary>
        public IReadOnlyList<float> ConditionMax { get; }

        internal unsafe ModelInfo(in Native.dwf_model_info info)
        {
            WeightCount = checked((int)info.weight_count);
            TensorCount = checked((int)info.tensor_count);
            LatentSize = checked((int)info.latent_size);
            ConditionSize = checked((int)info.condition_size);
            Steps = checked((long)info.steps);
            Evaluations = checked((long)info.evaluations);
            SolverError = info.solver_error;
            SourceStd = info.source_std;
            Solver = info.solver;
            Grid = info.grid;
            Basis = info.basis;
            Unconditional = info.unconditional != 0;
            Quality = Native.Text(info.quality);
            Provenance = Native.Text(info.provenance);
            Condition = Native.Text(info.condition);
            var names = new string[info.condition_names == null ? 0 : ConditionSize];
            for (int i = 0; i < names.Length; i++)
                names[i] = Native.Text(info.condition_names[i]);
            ConditionNames = Array.AsReadOnly(names);
            ConditionMin = Array.AsReadOnly(Floats(info.condition_min));
            ConditionMax = Array.AsReadOnly(Floats(info.condition_max));
        }

        private unsafe float[] Floats(float* values) =>
            new ReadOnlySpan<float>(values, values == null ? 0 : ConditionSize).ToArray();
    }
}
