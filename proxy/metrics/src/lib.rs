//! tulle-metrics
