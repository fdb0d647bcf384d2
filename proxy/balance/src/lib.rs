//! tulle-balance
